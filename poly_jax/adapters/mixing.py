"""The mix of an inventory of low-rank factors, laid out in memory as the products of training read it."""

import jax
from jaxtyping import Array, Float

from poly_jax.weights.sharding import devices_in_force


def mixed_in(
    weights: Float[Array, "*rows splits skills"], factors: Float[Array, "splits skills d_in/splits rank"]
) -> Float[Array, "*rows d_in rank"]:
    """The factors A of an inventory, mixed for every row and split (arXiv 2211.03831, eq. 4).

    The mix lies in memory as [*rows, rank, d_in]: its gradient is then a product with the inputs as they lie,
    which takes XLA's CPU backend a fifth of the time that it takes over [*rows, d_in, rank].
    """
    mixed = _by_split(weights, factors)
    *rows, width, rank = range(1, mixed.ndim)
    mixed = jax.lax.transpose(mixed, (*rows, rank, 0, width))
    return jax.lax.collapse(mixed, mixed.ndim - 2).mT


def mixed_out(
    weights: Float[Array, "*rows splits skills"], factors: Float[Array, "splits skills rank d_out/splits"]
) -> Float[Array, "*rows rank d_out"]:
    """The factors B of an inventory, mixed for every row and split."""
    mixed = _by_split(weights, factors)
    *rows, rank, width = range(1, mixed.ndim)
    mixed = jax.lax.transpose(mixed, (*rows, rank, 0, width))
    return jax.lax.collapse(mixed, mixed.ndim - 2)


def _by_split(
    weights: Float[Array, "*rows splits skills"], factors: Float[Array, "splits skills height width"]
) -> Float[Array, "splits *rows height width"]:
    # An einsum takes the inventory for the left operand, and XLA's CPU backend then transposes all of it, as
    # with the factors' axes apart. On several devices the axis that the mesh cuts must stay apart.
    contracted, batched = ((weights.ndim - 1,), (1,)), ((weights.ndim - 2,), (0,))
    joined = jax.lax.collapse(factors, 2) if devices_in_force() == 1 else factors
    mixed = jax.lax.dot_general(weights, joined, (contracted, batched))
    return jax.lax.reshape(mixed, (*mixed.shape[: weights.ndim - 1], *factors.shape[2:]))
