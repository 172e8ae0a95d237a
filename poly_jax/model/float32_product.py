"""Products of narrow numbers whose results are needed in float32."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.custom_derivatives import CustomVJPPrimal
from jaxtyping import Array, Float

_Wanted = tuple[tuple[()] | None, ...]
"""For each operand `()` where its gradient is wanted, else None: pytrees without leaves."""


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def float32_product(
    equation: str, left: Float[Array, "..."], right: Float[Array, "..."]
) -> Float[Array, "..."]:
    """`jnp.einsum` of two arrays of one dtype, accumulated and returned in float32.

    The backward pass rounds the gradient of the result to the operands' dtype, so that its products are as
    fast as the product of the forward pass. Left to itself, JAX multiplies float32 gradients.
    """
    return jnp.einsum(equation, left, right, preferred_element_type=jnp.float32)


def _forward(
    equation: str, left: CustomVJPPrimal, right: CustomVJPPrimal
) -> tuple[Array, tuple[Array, Array, _Wanted]]:
    # A frozen operand, such as the output head, has no gradient, and no product is spent on one.
    wanted = tuple(() if operand.perturbed else None for operand in (left, right))
    return float32_product(equation, left.value, right.value), (left.value, right.value, wanted)


def _backward(
    equation: str, kept: tuple[Array, Array, _Wanted], gradient: Array
) -> tuple[Array | None, Array | None]:
    left, right, wanted = kept
    gradient = gradient.astype(left.dtype)

    def pulled(product: Callable[[Array], Array], operand: Array) -> Array:
        return jax.linear_transpose(product, operand)(gradient)[0]

    return (
        None if wanted[0] is None else pulled(lambda left: jnp.einsum(equation, left, right), left),
        None if wanted[1] is None else pulled(lambda right: jnp.einsum(equation, left, right), right),
    )


float32_product.defvjp(_forward, _backward, symbolic_zeros=True)
