"""The mix of an inventory of low-rank factors, laid out in memory as the products of training read it."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from poly_jax.adapters.row_product import row_product
from poly_jax.weights.sharding import devices_in_force


def mixed_in(
    weights: Float[Array, "*rows splits skills"], factors: Float[Array, "splits skills d_in/splits rank"]
) -> Float[Array, "*rows d_in rank"]:
    """The factors A of an inventory, mixed for every row and split (arXiv 2211.03831, eq. 4).

    The mix lies in memory as [*rows, rank, d_in]: its gradient is then a product with the inputs as they lie,
    which takes XLA's CPU backend a fifth of the time that it takes over [*rows, d_in, rank].
    """
    return _mixed(weights, factors, rank=-1).mT


def mixed_out(
    weights: Float[Array, "*rows splits skills"], factors: Float[Array, "splits skills rank d_out/splits"]
) -> Float[Array, "*rows rank d_out"]:
    """The factors B of an inventory, mixed for every row and split."""
    return _mixed(weights, factors, rank=-2)


def _mixed(
    weights: Float[Array, "*rows splits skills"],
    factors: Float[Array, "splits skills height width"],
    rank: int,
) -> Float[Array, "*rows rank joined_splits"]:
    product = _on_one_device if devices_in_force() == 1 else _on_several_devices
    sizes = len(factors), *weights.shape[:-2], *factors.shape[2:]
    mixed = jax.lax.reshape(product(weights, factors), sizes)
    return jax.lax.collapse(jnp.moveaxis(mixed, (rank, 0), (-3, -2)), mixed.ndim - 2)


def _on_one_device(
    weights: Float[Array, "*rows splits skills"], factors: Float[Array, "splits skills height width"]
) -> Float[Array, "..."]:
    # An einsum takes the inventory for the left operand, and XLA's CPU backend then transposes all of it, as
    # with the factors' axes apart.
    weights, factors = weights.reshape(-1, *weights.shape[-2:]), jax.lax.collapse(factors, 2)
    if len(factors) == 1:
        # Around a batch axis of one split, XLA would transpose the gradients of the mixes and the inventory.
        return row_product(weights[:, 0], factors[0])
    return row_product(jnp.moveaxis(weights, 1, 0), factors)


def _on_several_devices(
    weights: Float[Array, "*rows splits skills"], factors: Float[Array, "splits skills height width"]
) -> Float[Array, "..."]:
    # The factors' axes stay apart, of which the mesh may cut either.
    splits = weights.ndim - 2
    if len(factors) == 1:
        weights, factors = jax.lax.squeeze(weights, (splits,)), jax.lax.squeeze(factors, (0,))
        return jax.lax.dot_general(weights, factors, (((splits,), (0,)), ((), ())))
    return jax.lax.dot_general(weights, factors, (((splits + 1,), (1,)), ((splits,), (0,))))
