"""T5X checkpoints give the arrays that their files hold, or an error that names the wrong file."""

import ast
import gzip
import json
import shutil

import ml_dtypes
import msgpack
import numpy as np
import orbax.checkpoint as ocp
import pytest

from poly_jax.errors import UserError
from poly_jax.weights.backbone import read_backbone
from poly_jax.weights.t5x_checkpoint import is_t5x, open_t5x
from poly_jax.weights.tree import flatten, unflatten
from poly_jax.weights.zarr_arrays import kvstore

VERSIONS = ["t5x_tiny_v1_0", "t5x_tiny_v1_1"]


def assert_equal(got, expected):
    assert got.keys() == expected.keys()
    for name, array in expected.items():
        assert got[name].dtype == array.dtype, name
        np.testing.assert_array_equal(got[name], array, err_msg=name)


def save_orbax(folder, tree, **options):
    state = {"target": tree, "state": {"step": np.array(10), "param_states": {"x": np.zeros(3, np.float32)}}}
    ocp.Checkpointer(ocp.PyTreeCheckpointHandler(**options)).save(folder / "state", state)


@pytest.mark.parametrize("version", VERSIONS)
def test_both_formats_give_the_same_parameters(shared_data, version):
    folder = shared_data / "t5x" / version
    legacy = flatten(read_backbone(folder / "legacy" / "checkpoint_1100000"))
    orbax = flatten(read_backbone(folder / "checkpoint_1100000"))
    assert_equal(orbax, legacy)


@pytest.mark.parametrize("version", VERSIONS)
def test_every_array_of_a_legacy_checkpoint_equals_its_chunk_unpacked_by_hand(shared_data, version):
    folder = shared_data / "t5x" / version / "legacy" / "checkpoint_1100000"
    by_hand = {}
    for place in folder.glob("target.*"):
        metadata = json.loads((place / ".zarray").read_text())
        assert metadata["chunks"] == metadata["shape"]
        chunk = gzip.decompress((place / ".".join("0" * len(metadata["shape"]))).read_bytes())
        name = place.name.removeprefix("target.").replace(".", "/")
        by_hand[name] = np.frombuffer(chunk, metadata["dtype"]).reshape(metadata["shape"])
    assert len(by_hand) == {"t5x_tiny_v1_0": 47, "t5x_tiny_v1_1": 52}[version]
    assert_equal(flatten(read_backbone(folder)), by_hand)


@pytest.mark.parametrize("version", VERSIONS)
def test_shapes_follow_from_the_configuration(shared_data, version):
    folder = shared_data / "t5x" / version
    config = ast.literal_eval(str(np.load(folder / "expected.npz")["config"]))
    tree = read_backbone(folder / "checkpoint_1100000")
    heads = config["num_heads"] * config["head_dim"]
    assert tree["token_embedder"]["embedding"].shape == (config["vocab_size"], config["emb_dim"])
    assert tree["encoder"]["layers_1"]["attention"]["query"]["kernel"].shape == (config["emb_dim"], heads)
    assert tree["decoder"]["relpos_bias"]["rel_embedding"].shape == (config["num_heads"], 32)
    assert ("logits_dense" in tree["decoder"]) is not config["logits_via_embedding"]


def test_legacy_arrays_come_from_chunks_and_from_the_msgpack_file(legacy_t5x):
    folder, expected = legacy_t5x
    assert_equal(flatten(read_backbone(folder)), expected)


def test_orbax_checkpoints_without_ocdbt_are_read(legacy_t5x, tmp_path):
    expected = legacy_t5x[1]
    save_orbax(tmp_path / "other", unflatten(expected), use_ocdbt=False)
    assert not (tmp_path / "other" / "state" / "manifest.ocdbt").exists()
    assert_equal(flatten(read_backbone(tmp_path / "other")), expected)


def test_orbax_checkpoints_in_zarr3_are_read(legacy_t5x, tmp_path):
    expected = legacy_t5x[1]
    save_orbax(tmp_path / "other", unflatten(expected), use_ocdbt=True, use_zarr3=True)
    assert_equal(flatten(read_backbone(tmp_path / "other")), expected)


def test_orbax_checkpoints_with_placeholders_are_read(legacy_t5x, tmp_path):
    expected = legacy_t5x[1]
    save_orbax(tmp_path / "other", unflatten(expected), use_ocdbt=False)
    state = tmp_path / "other" / "state"
    (state / "_METADATA").unlink()
    places = {name: f"PLACEHOLDER://target.{name.replace('/', '.')}" for name in expected}
    (state / "checkpoint").write_bytes(msgpack.packb({"target": unflatten(places), "flax_mutables": None}))
    assert_equal(flatten(read_backbone(tmp_path / "other")), expected)


def test_reading_as_bfloat16_rounds_every_float(legacy_t5x):
    folder, expected = legacy_t5x
    rounded = {name: array.astype(ml_dtypes.bfloat16) for name, array in expected.items()}
    assert_equal(flatten(read_backbone(folder, dtype="bfloat16")), rounded)


def test_loaded_arrays_are_writable(legacy_t5x):
    for array in flatten(read_backbone(legacy_t5x[0])).values():
        assert array.flags.writeable


def test_the_folder_of_a_run_stands_for_its_newest_checkpoint(legacy_t5x):
    folder, expected = legacy_t5x
    older = folder.parent / "checkpoint_9"
    older.mkdir()
    (older / "checkpoint").write_bytes(b"\x80")
    assert_equal(flatten(read_backbone(folder.parent)), expected)
    assert_equal(flatten(read_backbone(folder / "checkpoint")), expected)


def test_t5x_checkpoints_are_recognised_and_other_folders_are_not(legacy_t5x, tmp_path):
    assert is_t5x(legacy_t5x[0])
    assert not is_t5x(tmp_path / "nothing")
    tensorflow = tmp_path / "tensorflow"
    tensorflow.mkdir()
    assert not is_t5x(tensorflow)
    (tensorflow / "checkpoint").write_text('model_checkpoint_path: "model.ckpt-0"\n')
    assert not is_t5x(tensorflow)
    with pytest.raises(UserError, match="tensorflow is not a T5X checkpoint"):
        open_t5x(tensorflow)


def test_a_missing_array_is_reported_by_name(legacy_t5x):
    folder = legacy_t5x[0]
    shutil.rmtree(folder / "target.encoder.encoder_norm.scale")
    with pytest.raises(
        UserError, match=r"target\.encoder\.encoder_norm\.scale cannot be read.*does not exist"
    ):
        read_backbone(folder)


def test_a_missing_chunk_is_named_and_not_read_as_zeros(legacy_t5x):
    folder = legacy_t5x[0]
    (folder / "target.token_embedder.embedding" / "1.1").unlink()
    with pytest.raises(UserError, match=r"target\.token_embedder\.embedding/1\.1. is missing$"):
        read_backbone(folder)


def test_a_broken_chunk_is_reported_by_name(legacy_t5x):
    folder = legacy_t5x[0]
    chunk = folder / "target.token_embedder.embedding" / "0.1"
    chunk.write_bytes(chunk.read_bytes()[:20])
    with pytest.raises(UserError, match=r"target\.token_embedder\.embedding cannot be read.*embedding/0\.1"):
        read_backbone(folder)


def test_an_array_whose_shape_differs_from_the_manifest_is_reported_by_name(legacy_t5x):
    folder = legacy_t5x[0]
    shutil.rmtree(folder / "target.decoder.logits_dense.kernel")
    shutil.copytree(folder / "target.token_embedder.embedding", folder / "target.decoder.logits_dense.kernel")
    with pytest.raises(UserError, match=r"logits_dense\.kernel is stored as \[4, 6\], .* says \[6, 4\]"):
        read_backbone(folder)


def test_a_truncated_manifest_is_reported_by_name(legacy_t5x):
    folder = legacy_t5x[0]
    manifest = folder / "checkpoint"
    whole = manifest.read_bytes()
    for n in range(0, len(whole), 7):
        manifest.write_bytes(whole[:n])
        with pytest.raises(UserError, match=r"checkpoint_10/checkpoint is not a complete T5X manifest") as e:
            read_backbone(folder)
        assert "\n" not in str(e.value)


def test_a_missing_manifest_is_reported_by_name(legacy_t5x):
    folder = legacy_t5x[0]
    (folder / "checkpoint").unlink()
    with pytest.raises(UserError, match="has no file `checkpoint` or `_METADATA`"):
        read_backbone(folder)


def test_a_reference_to_a_folder_outside_the_checkpoint_is_refused(legacy_t5x):
    folder = legacy_t5x[0]
    content = msgpack.unpackb((folder / "checkpoint").read_bytes(), ext_hook=msgpack.ExtType)
    content["optimizer"]["target"]["encoder"]["encoder_norm"]["scale"]["kvstore"]["path"] = "../../secret/"
    (folder / "checkpoint").write_bytes(msgpack.packb(content))
    with pytest.raises(UserError, match=r"'\.\./\.\./secret/' is not a folder beside it"):
        read_backbone(folder)


@pytest.fixture
def orbax_state(shared_data, tmp_path):
    """A copy of an Orbax checkpoint, which the test may damage."""
    state = tmp_path / "checkpoint_1" / "state"
    shutil.copytree(shared_data / "t5x" / "t5x_tiny_v1_1" / "checkpoint_1100000" / "state", state)
    for path in [state, *state.rglob("*")]:
        path.chmod(0o755)
    return state


@pytest.mark.parametrize("lost", ["manifest.ocdbt", "_METADATA"])
def test_a_missing_manifest_of_an_orbax_checkpoint_is_reported_by_name(orbax_state, lost):
    (orbax_state / lost).unlink()
    with pytest.raises(UserError, match=f"checkpoint_1/state.*{lost}"):
        read_backbone(orbax_state.parent)


@pytest.mark.parametrize("lost", ["d", "ocdbt.process_0"])
def test_an_orbax_checkpoint_without_its_data_is_refused_with_the_name_of_an_array(orbax_state, lost):
    shutil.rmtree(orbax_state / lost)
    with pytest.raises(UserError, match=r"target\..* of .*checkpoint_1/state cannot be read") as e:
        read_backbone(orbax_state.parent)
    assert "\n" not in str(e.value)


def test_a_state_without_model_parameters_is_refused(tmp_path):
    ocp.PyTreeCheckpointer().save(tmp_path / "c" / "state", {"trained": {"x": np.zeros(2)}})
    with pytest.raises(UserError, match="holds no model parameters"):
        read_backbone(tmp_path / "c")


def test_buckets_are_read_with_the_gcs_driver():
    assert kvstore("gs://t5-data/models/small/checkpoint_1") == {
        "driver": "gcs",
        "bucket": "t5-data",
        "path": "models/small/checkpoint_1/",
    }
    with pytest.raises(UserError, match=r"s3://a/b: only local and gs:// checkpoints can be read"):
        kvstore("s3://a/b")


def test_a_chunk_that_would_fill_the_memory_is_refused(legacy_t5x):
    path = legacy_t5x[0] / "target.token_embedder.embedding" / ".zarray"
    metadata = json.loads(path.read_text())
    path.write_text(json.dumps({**metadata, "chunks": [10**9, 10**6]}))
    with pytest.raises(
        UserError, match=r"target\.token_embedder\.embedding has chunks of 10+ numbers for \[4, 6\]"
    ):
        read_backbone(legacy_t5x[0])


@pytest.mark.parametrize("content", ["[" * 100_000 + "]" * 100_000, "[]", "{", '{"shape": "\\ud800"}'])
def test_invalid_metadata_of_an_array_are_reported_by_name(legacy_t5x, content):
    (legacy_t5x[0] / "target.token_embedder.embedding" / ".zarray").write_text(content)
    with pytest.raises(
        UserError, match=r"target\.token_embedder\.embedding/\.zarray .*copy the checkpoint again"
    ):
        read_backbone(legacy_t5x[0])
