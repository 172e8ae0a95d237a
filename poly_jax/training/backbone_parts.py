"""Reads only the parts of a backbone that the devices of one host hold."""

import dataclasses
import functools
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Sharding
from jaxtyping import Shaped
from numpy.typing import DTypeLike

from poly_jax.weights.parameter_names import leaf
from poly_jax.weights.quantized import SCALE, Quantization, integer, is_quantized, kernel_name, quantize
from poly_jax.weights.tensors import Index, Tensor, Tensors, ahead

Blocks = dict[tuple[tuple[int, int], ...], np.ndarray]


@dataclasses.dataclass(frozen=True)
class Layout:
    """The form in which a model holds the parameters of its backbone.

    Attributes:
      layers: for each parameter whose layers are stacked, the names of its layers.
      shapes: shape of each parameter.
      places: sharding of each parameter.
      quantization: the integers that kernels become.
      dtype: the dtype of all other floats.
    """

    layers: Mapping[str, list[str]]
    shapes: Mapping[str, jax.ShapeDtypeStruct]
    places: Mapping[str, Sharding]
    quantization: Quantization
    dtype: DTypeLike


def read_parts(tensors: Tensors, layout: Layout, at_once: int) -> dict[str, jax.Array]:
    """Put a backbone's parameters onto the mesh, and read each block that this host's devices hold once.

    Args:
      tensors: the backbone's tensors by T5X's names, one per layer.
      layout: form in which the model holds them.
      at_once: number of parameters that are read ahead, in threads.
    """

    def read(name: str) -> Blocks:
        shape, blocks = layout.shapes[name].shape, {}
        for index in layout.places[name].addressable_devices_indices_map(shape).values():
            assert index is not None
            key = _bounds(index, shape)
            if key not in blocks:
                blocks[key] = _block(tensors, name, index, layout)
        return blocks

    def put(name: str, blocks: Blocks) -> jax.Array:
        shape = layout.shapes[name].shape
        return jax.make_array_from_callback(
            shape, layout.places[name], lambda index: blocks[_bounds(index, shape)]
        ).block_until_ready()

    reads = {name: functools.partial(read, name) for name in layout.shapes}
    return {name: put(name, blocks) for name, blocks in ahead(reads, at_once)}


def _bounds(index: Index | None, shape: tuple[int, ...]) -> tuple[tuple[int, int], ...]:
    assert index is not None
    return tuple(cut.indices(side)[:2] for cut, side in zip(index, shape, strict=True))


def _block(tensors: Tensors, name: str, index: Index, layout: Layout) -> Shaped[np.ndarray, "..."]:
    """A block of a parameter, whose layers may be stacked on the first axis."""
    if name not in layout.layers:
        return np.asarray(_layer_block(tensors, name, index, layout))
    named = layout.layers[name][index[0]]
    return np.stack([np.asarray(_layer_block(tensors, layer, index[1:], layout)) for layer in named])


def _layer_block(
    tensors: Tensors, name: str, index: Index, layout: Layout
) -> Shaped[np.ndarray | jax.Array, "..."]:
    if layout.quantization == "none" or not is_quantized(kernel_name(name)):
        return tensors[name].cast(layout.dtype).part(index)
    # A scale belongs to a whole column of its kernel.
    columns: Tensor = tensors[kernel_name(name)]
    kernel, scale = quantize(
        jnp.asarray(columns.part((slice(None), index[-1]))), integer(layout.quantization)
    )
    return scale if leaf(name) == SCALE else kernel[index[0]]
