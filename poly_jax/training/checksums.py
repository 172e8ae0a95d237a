"""Checksums of arrays, which do not depend on how the devices share an array."""

import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec
from jaxtyping import Array, Bool, Shaped, UInt32

from poly_jax.counted import counted
from poly_jax.errors import UserError
from poly_jax.files.json_fields import Fields
from poly_jax.weights.tensors import Tensor

# The golden ratio, and the finaliser lowbias32 of Chris Wellons (github.com/skeeto/hash-prospector): it maps
# 32 bits to 32 bits one to one, so that any change of one element changes the checksum.
_STRIDE = 0x9E3779B9
_MULTIPLIERS = (0x7FEB352D, 0x846CA68B)
_PIECE = 1 << 20


def checksums(tree: Any) -> dict[str, int]:
    """Return the checksum of every array of a tree that is to be saved, by '/'-joined name.

    The checksum of an array is the sum modulo 2^32, over its elements in C order, of a hash of the element's
    bits and of its index. It is computed where the array is, in memory or on devices, without moving it.

    Raises:
      UserError: an array has numbers that are not finite, which no checkpoint may have.
    """
    leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
    found = jax.device_get(
        {
            jax.tree_util.keystr(path, simple=True, separator="/"): (
                _on_devices(leaf) if isinstance(leaf, jax.Array) else _in_memory(np.asarray(leaf))
            )
            for path, leaf in leaves
        }
    )
    broken = [name for name, (_, finite) in found.items() if not finite]
    if broken:
        others = f" and {counted(len(broken) - 1, 'other array')}" if len(broken) > 1 else ""
        raise UserError(
            f"{broken[0]}{others}: not all numbers are finite, so no checkpoint is written; an update was too"
            " large for float32: choose a smaller learning rate"
        )
    return {name: int(total) for name, (total, _) in found.items()}


def checksum(array: Shaped[np.ndarray, "..."]) -> int:
    """Return the checksum of an array in memory, as `checksums` defines it."""
    flat = np.ascontiguousarray(array).reshape(-1)
    words = flat.view(f"u{flat.dtype.itemsize}")
    total = 0
    for first in range(0, len(words), _PIECE):
        piece = words[first : first + _PIECE].astype(np.uint32)
        index = np.arange(first + 1, first + 1 + len(piece), dtype=np.uint64).astype(np.uint32)
        index *= np.uint32(_STRIDE)
        piece += index
        piece ^= piece >> 16
        piece *= np.uint32(_MULTIPLIERS[0])
        piece ^= piece >> 15
        piece *= np.uint32(_MULTIPLIERS[1])
        piece ^= piece >> 16
        total += int(piece.sum(dtype=np.uint64))
    return total % 2**32


def verified(
    tensors: Mapping[str, Tensor], expected: Fields | None, place: object, advice: str
) -> dict[str, Tensor]:
    """Return the same tensors, each of which is compared with its checksum when it is read.

    Args:
      tensors: the stored tensors.
      expected: the checksum of each; None leaves the tensors as they are.
      place: their checkpoint, for the message.
      advice: instruction to the user in the message.

    Raises, when a tensor is read:
      UserError: its checksum is missing, or another one.
    """
    if expected is None:
        return dict(tensors)
    return {name: _verified(name, tensor, expected, place, advice) for name, tensor in tensors.items()}


def _verified(name: str, tensor: Tensor, expected: Fields, place: object, advice: str) -> Tensor:
    def load() -> np.ndarray:
        array = tensor.load()
        if checksum(array) != expected.take(name, int):
            raise UserError(
                f"{place}: the numbers of {name} are not those that were saved (their checksum differs); "
                f"{advice}"
            )
        return array

    return Tensor(tensor.shape, tensor.dtype, load)


def _in_memory(array: Shaped[np.ndarray, "..."]) -> tuple[int, bool]:
    inexact = jnp.issubdtype(array.dtype, jnp.inexact)
    return checksum(array), bool(np.isfinite(array).all()) if inexact else True


def _on_devices(array: jax.Array) -> tuple[UInt32[Array, ""], Bool[Array, ""]]:
    sharding = array.sharding
    place = NamedSharding(sharding.mesh, PartitionSpec()) if isinstance(sharding, NamedSharding) else None
    if place not in _compiled:
        _compiled[place] = jax.jit(_sum_and_finite, out_shardings=place)
    found = _compiled[place](array)
    if jax.default_backend() == "cpu":
        # The sum over devices waits in a thread of each simulated device. Where many arrays are summed at
        # once, those of different arrays take all threads, and wait for one another for ever.
        jax.block_until_ready(found)
    return found


_compiled: dict[NamedSharding | None, Any] = {}


def _sum_and_finite(array: Shaped[Array, "..."]) -> tuple[UInt32[Array, ""], Bool[Array, ""]]:
    finite = jnp.isfinite(array).all() if jnp.issubdtype(array.dtype, jnp.inexact) else jnp.asarray(True)
    bits = array.dtype.itemsize * 8
    if array.dtype == jnp.bool_:
        array = array.astype(jnp.uint8)
    words = jax.lax.bitcast_convert_type(array, f"uint{bits}").astype(jnp.uint32)
    # The index of each element is computed along each axis, because flattening would move a sharded array.
    index = jnp.uint32(1)
    for axis in range(array.ndim):
        stride = math.prod(array.shape[axis + 1 :]) % 2**32
        index = index + jax.lax.broadcasted_iota(jnp.uint32, array.shape, axis) * np.uint32(stride)
    hashed = words + index * np.uint32(_STRIDE)
    hashed = (hashed ^ (hashed >> 16)) * np.uint32(_MULTIPLIERS[0])
    hashed = (hashed ^ (hashed >> 15)) * np.uint32(_MULTIPLIERS[1])
    return (hashed ^ (hashed >> 16)).sum(dtype=jnp.uint32), finite
