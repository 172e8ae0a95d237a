"""The softmax over the largest of several scores."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


def softmax_over_largest(
    scores: Float[Array, "*rows skills"], count: int, temperature: float = 1.0
) -> Float[Array, "*rows skills"]:
    """`softmax(scores / temperature)` over the `count` largest scores, and 0 elsewhere; 0 keeps all."""
    if count:
        places = jax.lax.top_k(scores, count)[1]
        kept = jax.nn.one_hot(places, scores.shape[-1], dtype=bool).any(-2)
        scores = jnp.where(kept, scores, -jnp.inf)
    return jax.nn.softmax(scores / temperature, axis=-1)
