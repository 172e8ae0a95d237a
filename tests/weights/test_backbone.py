"""A backbone is read from any supported kind of checkpoint and checked against the model."""

import jax
import numpy as np
import pytest

from poly_jax.errors import UserError
from poly_jax.weights import single_file
from poly_jax.weights.backbone import check_tree, read_backbone
from poly_jax.weights.tree import flatten, unflatten


def test_every_kind_of_checkpoint_is_recognised(
    shared_data, legacy_t5x, hugging_face_config, hugging_face_tensors, write_hugging_face, tmp_path
):
    folder, arrays = legacy_t5x
    single_file.save(tmp_path / "backbone.safetensors", unflatten(arrays), {})
    hugging_face = write_hugging_face(hugging_face_config, hugging_face_tensors(hugging_face_config))
    assert flatten(read_backbone(folder)).keys() == arrays.keys()
    assert flatten(read_backbone(str(tmp_path / "backbone.safetensors"))).keys() == arrays.keys()
    assert read_backbone(hugging_face)["token_embedder"]["embedding"].shape == (12, 4)
    orbax = read_backbone(shared_data / "t5x" / "t5x_tiny_v1_1" / "checkpoint_1100000")
    assert orbax["token_embedder"]["embedding"].shape == (384, 16)


def test_every_kind_of_checkpoint_is_cast_on_request(
    legacy_t5x, hugging_face_config, hugging_face_tensors, write_hugging_face, tmp_path
):
    folder, arrays = legacy_t5x
    single_file.save(tmp_path / "backbone.safetensors", unflatten(arrays), {})
    hugging_face = write_hugging_face(hugging_face_config, hugging_face_tensors(hugging_face_config))
    for path in (folder, tmp_path / "backbone.safetensors", hugging_face):
        dtypes = {array.dtype.name for array in flatten(read_backbone(path, dtype="bfloat16")).values()}
        assert dtypes == {"bfloat16"}


def test_a_path_without_a_checkpoint_is_refused_with_its_content_and_the_accepted_kinds(tmp_path):
    accepted = r"give a T5X checkpoint folder .* Hugging Face folder .* \.safetensors file"
    with pytest.raises(UserError, match=rf"nothing does not exist; {accepted}"):
        read_backbone(tmp_path / "nothing")
    with pytest.raises(UserError, match=rf"is a folder with nothing in it; {accepted}"):
        read_backbone(tmp_path)
    for i in range(7):
        (tmp_path / f"file{i}.txt").write_text("x")
    with pytest.raises(UserError, match=rf"file0\.txt, file1\.txt, .*file4\.txt and 2 more; {accepted}") as e:
        read_backbone(tmp_path)
    assert "\n" not in str(e.value)
    with pytest.raises(UserError, match=rf"file0\.txt is a file of another kind; {accepted}"):
        read_backbone(tmp_path / "file0.txt")


def test_a_tree_that_fits_is_accepted():
    got = {"a": {"kernel": np.zeros((2, 3))}, "b": np.zeros(4)}
    check_tree({"a": {"kernel": (2, 3)}, "b": jax.ShapeDtypeStruct((4,), np.float32)}, got, "file")


def test_shape_mismatches_are_reported_with_both_shapes():
    with pytest.raises(
        UserError, match=r"^file .* 1 of another shape \(a/kernel is \[2, 3\] and the model has \[3, 2\]\)$"
    ):
        check_tree({"a": {"kernel": (3, 2)}}, {"a": {"kernel": np.zeros((2, 3))}}, "file")


def test_missing_and_unknown_parameters_are_counted_and_the_first_ten_listed():
    expected = {f"layers_{i:02}": {"scale": (1,)} for i in range(12)}
    with pytest.raises(UserError) as e:
        check_tree(expected, {"other": {"scale": np.zeros(1)}}, "gs://bucket/x")
    first = ", ".join(f"layers_{i:02}/scale" for i in range(10))
    assert str(e.value) == (
        "gs://bucket/x does not fit the model; parameters: "
        f"12 missing (first 10: {first}); 1 unknown (other/scale)"
    )
