"""Checksums of arrays notice every changed bit, wherever the array is."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from poly_jax.errors import UserError
from poly_jax.training.checksums import checksum, checksums


def lowbias32(x):
    """The published hash, in Python's whole numbers (github.com/skeeto/hash-prospector)."""
    x ^= x >> 16
    x = x * 0x7FEB352D % 2**32
    x ^= x >> 15
    x = x * 0x846CA68B % 2**32
    return x ^ x >> 16


def expected(words):
    return sum(lowbias32((word + (i + 1) * 0x9E3779B9) % 2**32) for i, word in enumerate(words)) % 2**32


@pytest.mark.parametrize("dtype", ["float32", "int32", "bfloat16", "uint8", "bool"])
@pytest.mark.parametrize("shape", [(), (7,), (3, 4), (2, 3, 5)])
def test_a_checksum_is_the_sum_of_the_hashes_of_bits_and_places(dtype, shape):
    array = np.asarray(jnp.asarray(np.random.default_rng(0).normal(size=shape) * 9).astype(dtype))
    words = np.ascontiguousarray(array).reshape(-1).view(f"u{array.dtype.itemsize}").tolist()
    assert checksum(array) == expected(words)
    assert checksums({"a": [jnp.asarray(array)]}) == {"a/0": expected(words)}


def test_every_single_bit_and_every_swap_changes_the_checksum():
    array = np.random.default_rng(1).normal(size=(4, 3)).astype(np.float32)
    seen = {checksum(array)}
    bits = array.view(np.uint32)
    for place in np.ndindex(array.shape):
        for bit in range(32):
            bits[place] ^= np.uint32(1 << bit)
            seen.add(checksum(array))
            bits[place] ^= np.uint32(1 << bit)
    seen.add(checksum(array[::-1]))
    assert len(seen) == 1 + 12 * 32 + 1


@pytest.mark.parametrize("place", [np.asarray, jnp.asarray], ids=["memory", "device"])
@pytest.mark.parametrize("value", [np.nan, -np.inf])
def test_arrays_that_are_not_finite_are_not_saved(place, value):
    tree = {"a": np.arange(3), "b": {"c": np.ones(2, np.float32), "d": np.array([1.0, value], np.float32)}}
    with pytest.raises(UserError, match=r"^b/d: not all numbers are finite"):
        checksums(jax.tree.map(place, tree))


def test_the_pieces_of_a_long_array_are_joined(monkeypatch):
    array = np.arange(50, dtype=np.int32)
    monkeypatch.setattr("poly_jax.training.checksums._PIECE", 8)
    assert checksum(array) == expected(range(50))


def test_a_stored_tree_is_reported_where_one_number_has_changed(tmp_path):
    from poly_jax.files.json_fields import Fields
    from poly_jax.training.checksums import verified
    from poly_jax.weights.tensors import of_tree

    tree = {"a": {"b": np.ones(3, np.float32)}}
    right = Fields(checksums(jax.tree.map(jnp.asarray, tree)), "checksums")
    np.testing.assert_array_equal(verified(of_tree(tree), right, "x", "copy it")["a/b"].load(), np.ones(3))
    tree["a"]["b"][1] = np.nextafter(np.float32(1), np.float32(2))
    with pytest.raises(UserError, match=r"x: the numbers of a/b are not those that were saved"):
        verified(of_tree(tree), right, "x", "copy it")["a/b"].load()


def main():
    """Print the checksums of many arrays that eight devices share, and of the same arrays in memory."""
    mesh = jax.make_mesh((4, 2), ("data", "model"))
    draw = np.random.default_rng(0)
    arrays = [draw.normal(size=(8, 4, 6)).astype(np.float32) for _ in range(600)]
    specs = [PartitionSpec("data", "model"), PartitionSpec("model"), PartitionSpec()]
    placed = [
        jax.device_put(array, NamedSharding(mesh, specs[number % 3])) for number, array in enumerate(arrays)
    ]
    found = checksums(placed)
    print(json.dumps([[found[str(number)] for number in range(600)], list(map(checksum, arrays))]))


@pytest.mark.slow
def test_many_arrays_on_eight_devices_have_the_checksums_that_they_have_in_memory(on_eight_devices):
    """Summed all at once, they took all threads of the devices, and each waited for another's."""
    found, wanted = on_eight_devices(__file__)
    assert found == wanted


if __name__ == "__main__":
    main()
