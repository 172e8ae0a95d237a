"""Parameters saved in the project's own file format are read back bit for bit."""

import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy

from poly_jax.errors import UserError
from poly_jax.weights import single_file
from poly_jax.weights.tree import flatten

TREE = {
    "token_embedder": {"embedding": np.arange(6, dtype=np.float32).reshape(2, 3)},
    "encoder": {
        "layers_0": {"attention": {"query": {"kernel": np.arange(6.0, dtype=np.float32).reshape(2, 3).T}}}
    },
    "decoder": {"decoder_norm": {"scale": np.array([1.5, -2.0, 3e38], ml_dtypes.bfloat16)}},
}
METADATA = {"vocab_size": 2, "mlp_activations": ["gelu", "linear"], "dropout_rate": 0.1, "dtype": "bfloat16"}


def test_trees_and_metadata_are_read_back_equal(tmp_path):
    single_file.save(tmp_path / "b.safetensors", TREE, METADATA)
    tree, metadata = single_file.load(tmp_path / "b.safetensors")
    assert metadata == METADATA
    got, expected = flatten(tree), flatten(TREE)
    assert got.keys() == expected.keys()
    for name, array in expected.items():
        assert got[name].dtype == array.dtype
        np.testing.assert_array_equal(got[name], array)
    assert [file.name for file in tmp_path.iterdir()] == ["b.safetensors"]


def test_the_file_holds_joined_names_that_any_reader_understands(tmp_path):
    single_file.save(tmp_path / "b.safetensors", {"encoder": {"x": jnp.ones((2, 2))}}, {})
    stored = safetensors.numpy.load_file(tmp_path / "b.safetensors")
    assert list(stored) == ["encoder/x"]
    np.testing.assert_array_equal(stored["encoder/x"], np.ones((2, 2)))


def test_floats_are_cast_on_loading_and_integers_are_not(tmp_path):
    tree = {"x": np.array([1.001], np.float32), "n": np.array([3])}
    single_file.save(tmp_path / "b.safetensors", tree, {})
    got = single_file.load(tmp_path / "b.safetensors", dtype="bfloat16")[0]
    assert got["x"].dtype == ml_dtypes.bfloat16
    assert got["n"].dtype == np.int64


def test_a_file_that_cannot_be_written_is_reported_by_name(tmp_path):
    with pytest.raises(UserError, match=r"nowhere/b\.safetensors cannot be written"):
        single_file.save(tmp_path / "nowhere" / "b.safetensors", TREE, METADATA)


def test_a_truncated_file_and_a_missing_one_are_reported_by_name(tmp_path):
    file = tmp_path / "b.safetensors"
    with pytest.raises(UserError, match=r"b\.safetensors is missing"):
        single_file.load(file)
    single_file.save(file, TREE, METADATA)
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(UserError, match=r"b\.safetensors cannot be read as safetensors"):
        single_file.load(file)


def test_a_file_written_by_another_program_is_refused(tmp_path):
    safetensors.numpy.save_file({"shared.weight": np.ones((2, 2))}, tmp_path / "model.safetensors")
    with pytest.raises(
        UserError, match="was not written by poly_jax; for a Hugging Face model give the folder"
    ):
        single_file.load(tmp_path / "model.safetensors")
