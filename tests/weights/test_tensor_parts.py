"""A block of a stored array is what slicing the whole array gives, for checkpoints of every kind."""

import numpy as np
import pytest

from poly_jax.weights import single_file
from poly_jax.weights.backbone import open_backbone
from poly_jax.weights.tree import unflatten


@pytest.fixture(params=["t5x", "hugging_face", "poly_jax"])
def path(request, tmp_path):
    if request.param == "t5x":
        return request.getfixturevalue("legacy_t5x")[0]
    if request.param == "hugging_face":
        config = request.getfixturevalue("hugging_face_config")
        tensors = request.getfixturevalue("hugging_face_tensors")(config)
        return request.getfixturevalue("write_hugging_face")(config, tensors)
    rng = np.random.default_rng(0)
    tree = unflatten({"encoder/a/kernel": rng.normal(size=(4, 6)), "b/scale": rng.normal(size=5)})
    single_file.save(tmp_path / "b.safetensors", tree, {})
    return tmp_path / "b.safetensors"


def test_a_part_is_the_slice_of_the_whole(path):
    tensors = open_backbone(path).tensors
    assert any(len(tensor.shape) == 2 for tensor in tensors.values())
    for name, tensor in tensors.items():
        whole = tensor.load()
        halves = tuple(slice(side // 2, side) for side in tensor.shape)
        assert tensor.load_part is not None, name
        np.testing.assert_array_equal(tensor.part(halves), whole[halves], err_msg=name)
        np.testing.assert_array_equal(tensor.part((slice(None),) * whole.ndim), whole, err_msg=name)
        cast = tensor.cast("bfloat16").part(halves)
        np.testing.assert_array_equal(cast, whole.astype(cast.dtype)[halves], err_msg=name)


def test_a_part_of_a_zarr_array_needs_no_other_chunk(legacy_t5x):
    path, parameters = legacy_t5x
    tensors = open_backbone(path).tensors
    for place in path.glob("target.*"):
        chunks = sorted(file for file in place.iterdir() if not file.name.startswith("."))
        if len(chunks) > 1:
            name = place.name.removeprefix("target.").replace(".", "/")
            rows = tensors[name].shape[0] // 2
            for chunk in chunks:
                if not chunk.name.startswith("0"):
                    chunk.unlink()
            part = (slice(0, rows), *(slice(None) for _ in tensors[name].shape[1:]))
            np.testing.assert_array_equal(tensors[name].part(part), parameters[name][:rows])
            return
    raise AssertionError("the checkpoint has no array of several chunks")
