"""Products of rows with factors of their own, whose gradients are as fast as the products on a CPU."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from poly_jax.weights.sharding import devices_in_force

_FEW = 2**15
"""The most multiplications of a row that belong to a small product."""


def row_product(
    x: Float[Array, "*#rows length d_in"], y: Float[Array, "*#rows d_in d_out"]
) -> Float[Array, "*#rows length d_out"]:
    """`x @ y`, where each row has an x and a y of its own."""
    multiplications = x.shape[-2] * x.shape[-1] * y.shape[-1]
    # Rows may share a factor, as the A of skills whose outputs are averaged.
    if x.shape[:-2] == y.shape[:-2] and multiplications <= _FEW and devices_in_force() == 1:
        return _small_product(x, y)
    return x @ y


@jax.custom_vjp
def _small_product(
    x: Float[Array, "*rows length d_in"], y: Float[Array, "*rows d_in d_out"]
) -> Float[Array, "*rows length d_out"]:
    return x @ y


def _forward(x: Array, y: Array) -> tuple[Array, tuple[Array, Array]]:
    return x @ y, (x, y)


def _backward(kept: tuple[Array, Array], change: Array) -> tuple[Array, Array]:
    x, y = kept
    return change @ y.mT, _summed_over_length(x, change)


_small_product.defvjp(_forward, _backward)


def _summed_over_length(
    x: Float[Array, "*rows length left"], y: Float[Array, "*rows length right"]
) -> Float[Array, "*rows left right"]:
    """`x.mT @ y`, of which the narrower is transposed in memory.

    The fast products of XLA's CPU backend (YNN) take no left operand whose columns are summed over. Eigen
    multiplies those, one row after another, which takes 4.5 times as long for 1,056 rows of 12 x 4 and 12 x
    64 (jax 0.10.2). For large products both take the same time.
    """
    if x.shape[-1] > y.shape[-1]:
        return _summed_over_length(y, x).mT
    # Without the barrier, XLA takes the transposition into the product.
    return jax.lax.optimization_barrier(jnp.matrix_transpose(x)) @ y
