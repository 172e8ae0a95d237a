"""The few largest of many values, as the choice among a whole vocabulary needs them."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

_BLOCK = 128


def largest(
    values: Float[Array, "*rows values"], k: int
) -> tuple[Float[Array, "*rows k"], Int[Array, "*rows k"]]:
    """`jax.lax.top_k`, which looks into all values one by one on a CPU.

    The k largest values lie in the k blocks with the largest maxima, which are found far faster. Of equal
    values the first are taken, as there.
    """
    n_blocks, rest = divmod(values.shape[-1], _BLOCK)
    if rest or n_blocks <= k:
        return jax.lax.top_k(values, k)
    blocks = values.reshape(*values.shape[:-1], n_blocks, _BLOCK)
    _, chosen = jax.lax.top_k(blocks.max(axis=-1), k)
    chosen = jnp.sort(chosen, axis=-1)
    candidates = jnp.take_along_axis(blocks, chosen[..., None], axis=-2)
    found, places = jax.lax.top_k(candidates.reshape(*values.shape[:-1], -1), k)
    within, place = jnp.divmod(places, _BLOCK)
    return found, jnp.take_along_axis(chosen, within, axis=-1) * _BLOCK + place
