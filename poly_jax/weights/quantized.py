"""Frozen kernels as integers, with a float scale for each output feature, by the library qwix."""

import functools
from collections.abc import Mapping
from typing import Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int, Shaped
from numpy.typing import DTypeLike

from poly_jax.errors import UserError
from poly_jax.weights.parameter_names import beside, leaf
from poly_jax.weights.t5_shapes import HEAD
from poly_jax.weights.tensors import Tensor

Quantization = Literal["none", "int8", "int4"]

KERNEL = "kernel"
SCALE = "kernel_scale"
"""Name of the scales, beside their `kernel`."""

_STORED = np.dtype(np.int8)


def integer(quantization: Quantization) -> jnp.dtype:
    """The dtype of the integers."""
    assert quantization in get_args(Quantization)[1:]
    return jnp.dtype(quantization)


def is_quantized(name: str) -> bool:
    """Whether a parameter with this T5X name becomes integers: the kernels of all sites do.

    Embeddings, the output head, norms and relative position biases stay floats.
    """
    return leaf(name) == KERNEL and name != HEAD


def kept_dtype(name: str, declared: DTypeLike, dtype: DTypeLike) -> DTypeLike:
    """The dtype of a frozen parameter: as the model declares it where it is quantized, and else `dtype`."""
    own = leaf(name) == SCALE or not jnp.issubdtype(jnp.dtype(declared), jnp.floating)
    return declared if own else dtype


def scale_name(kernel: str) -> str:
    """The name of a kernel's scales."""
    return beside(kernel, SCALE)


def kernel_name(name: str) -> str:
    """The name of the kernel that scales belong to; any other name is returned unchanged."""
    return beside(name, KERNEL) if leaf(name) == SCALE else name


def quantize(
    kernel: Float[np.ndarray | jax.Array, "*layers d_in d_out"], dtype: jnp.dtype
) -> tuple[Int[jax.Array, "*layers d_in d_out"], Float[jax.Array, "*layers d_out"]]:
    """The integers, and the float32 scale of each output feature: for int8, its largest weight over 127.

    Quantizing `dequantize(*quantize(kernel))` again gives the same integers.
    """
    # The library takes a second to import, and most programs do not need it.
    import qwix

    kernel = jnp.asarray(kernel, jnp.float32)
    kept = [axis for axis in range(kernel.ndim) if axis != kernel.ndim - 2]
    # The library's own step is the largest weight over 127.5. With one over 127, the largest weight is on the
    # grid, so that quantizing again finds the same grid.
    largest = jnp.iinfo(dtype).max
    found = qwix.quantize(
        kernel, dtype, channelwise_axes=kept, calibration_method=f"absmax,{(largest + 0.5) / largest!r}"
    )
    return found.qvalue, found.scale.squeeze(-2)


def dequantize(
    kernel: Int[np.ndarray, "*layers d_in d_out"], scale: Float[np.ndarray, "*layers d_out"]
) -> Float[np.ndarray, "*layers d_in d_out"]:
    """The kernel that integers and scales stand for, in float32."""
    return kernel.astype(np.float32) * scale[..., None, :]


def quantized_tensors(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors, with the kernels of all sites as int8 when they are read, and with their scales."""
    found: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        if not is_quantized(name):
            found[name] = tensor
            continue

        def part(index: int, tensor: Tensor = tensor) -> Shaped[np.ndarray, "..."]:
            return np.asarray(quantize(tensor.load(), jnp.dtype(_STORED))[index])

        found[name] = Tensor(tensor.shape, _STORED, functools.partial(part, 0))
        shape = (*tensor.shape[:-2], tensor.shape[-1])
        found[scale_name(name)] = Tensor(shape, np.dtype(np.float32), functools.partial(part, 1))
    return found


def dequantized_tensors(tensors: Mapping[str, Tensor], source: object) -> dict[str, Tensor]:
    """The tensors as floats: each kernel that is stored as integers is scaled when it is read.

    Args:
      tensors: tensors by T5X's names.
      source: name of their file, for messages.

    Raises:
      UserError: integers lack their scales.
    """
    found: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        if is_quantized(name) and tensor.dtype == _STORED:
            scale = tensors.get(scale_name(name))
            if scale is None:
                raise UserError(
                    f"{source}: {name} holds integers without their scales; import the backbone again"
                )

            def load(tensor: Tensor = tensor, scale: Tensor = scale) -> Float[np.ndarray, "..."]:
                return dequantize(tensor.load(), scale.load())

            found[name] = Tensor(tensor.shape, np.dtype(np.float32), load)
        elif leaf(name) != SCALE:
            found[name] = tensor
    return found
