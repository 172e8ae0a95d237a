"""The product of a site's input with its frozen kernel, which may be stored as integers."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.linen import partitioning
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, Float

from poly_jax.model.fan_out import FanOut
from poly_jax.weights.parameter_spec import Initializer
from poly_jax.weights.quantized import SCALE, Quantization, integer

PRODUCT = "product"
"""Name of the frozen products for policies of rematerialisation."""


def frozen_product(
    x: Float[Array, "batch length d_in"] | FanOut,
    features: int,
    kernel_init: Initializer,
    kernel_axes: tuple[str, str],
    quantization: Quantization,
) -> Float[Array, "batch length d_out"]:
    """`x W`. Called inside a compact module, which then owns W as its parameter `kernel`.

    Args:
      x: the site's input.
      features: output width.
      kernel_init: initialiser of W.
      kernel_axes: logical names of W's axes.
      quantization: form in which W is stored; integers come with a parameter `kernel_scale` [d_out].
    """
    x, copies = (x.x, x.copies) if isinstance(x, FanOut) else (x, None)
    shape = (x.shape[-1], features)
    if quantization == "none":
        kernel = partitioning.param_with_axes("kernel", kernel_init, shape, jnp.float32, axes=kernel_axes)
        return checkpoint_name(_product(x, copies, kernel.astype(x.dtype)), PRODUCT)
    # Integers are made from a float model's kernels, never drawn.
    integers = partitioning.param_with_axes(
        "kernel", nn.initializers.zeros, shape, integer(quantization), axes=kernel_axes
    )
    scale = partitioning.param_with_axes(
        SCALE, nn.initializers.ones, shape[1:], jnp.float32, axes=kernel_axes[1:]
    )

    def product(x: Array, copies: Array | None, integers: Array, scale: Array) -> Array:
        return _product(x, copies, integers.astype(x.dtype)) * scale.astype(x.dtype)

    # Recomputed in the backward pass, because otherwise a float copy of the kernel would be kept for it.
    y = jax.checkpoint(product, prevent_cse=False)(x, copies, integers, scale)
    return checkpoint_name(y, PRODUCT)


def _product(
    x: Float[Array, "batch length d_in"],
    copies: Float[Array, "parts batch length d_in"] | None,
    kernel: Float[Array, "d_in d_out"],
) -> Float[Array, "batch length d_out"]:
    """`x W`; with copies of x, each is multiplied by the part of W that is on the same devices."""
    if copies is None:
        return x @ kernel

    def product(copies: Array, kernel: Array) -> Array:
        parts = kernel.reshape(copies.shape[-1], copies.shape[0], -1)
        return jnp.einsum("pbld,dpo->blpo", copies, parts).reshape(*copies.shape[1:3], -1)

    # What a scan over layers keeps for the backward pass is the kernel itself, not a reshaped copy of it.
    return jax.checkpoint(product, prevent_cse=False)(copies, kernel)
