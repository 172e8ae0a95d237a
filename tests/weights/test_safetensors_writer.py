"""Files written tensor by tensor can be read by the safetensors library, whole or split into shards."""

import json

import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy
from safetensors import safe_open

from poly_jax.errors import UserError
from poly_jax.weights.safetensors_writer import write_file, write_shards
from poly_jax.weights.tensors import Tensor, of_tree

RNG = np.random.default_rng(0)
ARRAYS = {
    "odd": RNG.normal(size=(3, 1)).astype(ml_dtypes.bfloat16),
    "half": RNG.normal(size=5).astype(np.float16),
    "turned": RNG.normal(size=(4, 3)).astype(np.float32).T,
    "strided": RNG.normal(size=(6, 2))[::2],
    "scalar": np.array(7, np.int64),
    "flags": np.array([True, False]),
    "none": np.zeros((0, 3), np.float32),
}


def assert_equal(got, expected):
    assert got.keys() == expected.keys()
    for name, array in expected.items():
        assert got[name].dtype == array.dtype, name
        np.testing.assert_array_equal(got[name], array, err_msg=name)


def test_every_dtype_and_memory_layout_is_read_back_equal(tmp_path):
    write_file(tmp_path / "f.safetensors", of_tree(ARRAYS), {"format": "pt"})
    assert_equal(safetensors.numpy.load_file(tmp_path / "f.safetensors"), ARRAYS)
    with safe_open(tmp_path / "f.safetensors", framework="np") as f:
        assert f.metadata() == {"format": "pt"}


def test_every_array_starts_at_a_multiple_of_its_item_size(tmp_path):
    file = tmp_path / "f.safetensors"
    write_file(file, of_tree(ARRAYS), {})
    content = file.read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    for name, array in ARRAYS.items():
        assert (8 + length + header[name]["data_offsets"][0]) % array.dtype.itemsize == 0, name


def test_one_tensor_at_a_time_is_loaded_and_its_bytes_are_reported(tmp_path):
    alive, told = [], []

    class Counted(np.ndarray):
        def __del__(self):
            if alive:
                alive.pop()

    def load():
        assert not alive
        alive.append(1)
        return np.zeros((2, 2), np.float32).view(Counted)

    tensors = {str(i): Tensor((2, 2), np.dtype(np.float32), load) for i in range(3)}
    write_file(tmp_path / "f.safetensors", tensors, {}, told.append)
    assert told == [16, 16, 16]


def test_shards_are_no_larger_than_asked_and_the_index_lists_every_tensor(tmp_path):
    arrays = {f"t{i}": RNG.normal(size=(i + 1, 4)).astype(np.float32) for i in range(6)}
    write_shards(tmp_path, "model", of_tree(arrays), {"format": "pt"}, shard_bytes=100)
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text())
    assert index["metadata"]["total_size"] == sum(array.nbytes for array in arrays.values())
    files = sorted(set(index["weight_map"].values()))
    assert files == [f"model-{i:05}-of-{len(files):05}.safetensors" for i in range(1, len(files) + 1)]
    found = {}
    for file in files:
        shard = safetensors.numpy.load_file(tmp_path / file)
        assert len(shard) == 1 or sum(array.nbytes for array in shard.values()) <= 100
        assert {name for name, place in index["weight_map"].items() if place == file} == shard.keys()
        found |= shard
    assert_equal(found, arrays)


def test_tensors_that_fit_in_one_file_have_no_index(tmp_path):
    write_shards(tmp_path, "model", of_tree(ARRAYS), {})
    assert [file.name for file in tmp_path.iterdir()] == ["model.safetensors"]


def test_no_file_is_left_where_a_tensor_cannot_be_read(tmp_path):
    def load():
        raise UserError("shard 3 is broken")

    tensors = {"x": Tensor((1,), np.dtype(np.float32), load)}
    with pytest.raises(UserError, match="shard 3 is broken"):
        write_file(tmp_path / "f.safetensors", tensors, {})
    assert not list(tmp_path.iterdir())


def test_dtypes_that_the_format_lacks_are_refused_by_name(tmp_path):
    with pytest.raises(UserError, match="x is complex64, which safetensors files do not hold"):
        write_file(tmp_path / "f.safetensors", of_tree({"x": np.zeros(1, np.complex64)}), {})
