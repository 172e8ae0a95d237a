"""Reads only the parts of a backbone that the devices of one host hold."""

import functools
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Sharding
from jaxtyping import Shaped
from numpy.typing import DTypeLike

from poly_jax.weights.quantized import SCALE, Quantization, integer, is_quantized, kernel_name, quantize
from poly_jax.weights.tensors import Index, Tensor, Tensors, ahead

Blocks = dict[tuple[tuple[int, int], ...], np.ndarray]


def read_parts(
    tensors: Tensors,
    layers: Mapping[str, list[str]],
    shapes: Mapping[str, jax.ShapeDtypeStruct],
    places: Mapping[str, Sharding],
    quantization: Quantization,
    dtype: DTypeLike,
    at_once: int,
) -> dict[str, jax.Array]:
    """Put a backbone's parameters onto the mesh, and read each block that this host's devices hold once.

    Args:
      tensors: the backbone's tensors by T5X's names, one per layer.
      layers: for each parameter whose layers are stacked, the names of its layers.
      shapes: shape of each of the model's parameters.
      places: the sharding of each parameter.
      quantization: the integers that kernels become.
      dtype: the dtype that other floats are cast to.
      at_once: number of parameters that are read ahead, in threads.
    """

    def read(name: str) -> Blocks:
        blocks: Blocks = {}
        indices = places[name].addressable_devices_indices_map(shapes[name].shape)
        for index in indices.values():
            assert index is not None
            key = _bounds(index, shapes[name].shape)
            if key not in blocks:
                blocks[key] = _block(tensors, layers.get(name, name), index, quantization, dtype)
        return blocks

    def put(name: str, blocks: Blocks) -> jax.Array:
        shape = shapes[name].shape
        return jax.make_array_from_callback(
            shape, places[name], lambda index: blocks[_bounds(index, shape)]
        ).block_until_ready()

    reads = {name: functools.partial(read, name) for name in shapes}
    return {name: put(name, blocks) for name, blocks in ahead(reads, at_once)}


def _bounds(index: Index | None, shape: tuple[int, ...]) -> tuple[tuple[int, int], ...]:
    assert index is not None
    return tuple(cut.indices(side)[:2] for cut, side in zip(index, shape, strict=True))


def _block(
    tensors: Tensors, names: str | list[str], index: Index, quantization: Quantization, dtype: DTypeLike
) -> Shaped[np.ndarray, "..."]:
    """A block of a parameter, or of the layers with these names as they are stacked on the first axis."""
    if isinstance(names, str):
        return np.asarray(_layer_block(tensors, names, index, quantization, dtype))
    return np.stack(
        [np.asarray(_layer_block(tensors, name, index[1:], quantization, dtype)) for name in names[index[0]]]
    )


def _layer_block(
    tensors: Tensors, name: str, index: Index, quantization: Quantization, dtype: DTypeLike
) -> Shaped[np.ndarray | jax.Array, "..."]:
    if quantization == "none" or not is_quantized(kernel_name(name)):
        return tensors[name].cast(dtype).part(index)
    # A scale belongs to a whole column of its kernel.
    columns: Tensor = tensors[kernel_name(name)]
    kernel, scale = quantize(jnp.asarray(columns.part((slice(None), index[-1]))), integer(quantization))
    return scale if name.endswith(f"/{SCALE}") else kernel[index[0]]
