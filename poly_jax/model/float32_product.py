"""Products of narrow numbers whose results are needed in float32."""

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def float32_product(
    equation: str, left: Float[Array, "..."], right: Float[Array, "..."]
) -> Float[Array, "..."]:
    """`jnp.einsum` of two arrays of one dtype, accumulated and returned in float32.

    The backward pass rounds the gradient of the result to the operands' dtype, so that its products are as
    fast as that of the forward pass. Left to itself, JAX multiplies float32 gradients.
    """
    return jnp.einsum(equation, left, right, preferred_element_type=jnp.float32)


def _forward(equation: str, left: Array, right: Array) -> tuple[Array, tuple[Array, Array]]:
    return float32_product(equation, left, right), (left, right)


def _backward(equation: str, operands: tuple[Array, Array], gradient: Array) -> tuple[Array, Array]:
    _, pull = jax.vjp(functools.partial(jnp.einsum, equation), *operands)
    return pull(gradient.astype(operands[0].dtype))


float32_product.defvjp(_forward, _backward)
