"""Vectors with mean 0 and variance 1, as routers compare them."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

_EPSILON = 1e-5


def standardized(x: Float[Array, "*rows width"]) -> Float[Array, "*rows width"]:
    """Layer normalisation in float32, without parameters of its own (arXiv 1607.06450)."""
    x = x.astype(jnp.float32)
    centred = x - x.mean(-1, keepdims=True)
    return centred * jax.lax.rsqrt(jnp.square(centred).mean(-1, keepdims=True) + _EPSILON)
