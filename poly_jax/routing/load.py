"""The load of the skills: how a router that looks at inputs divides them among the skills."""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float


def load_statistics(
    weights: Float[Array, "*rows skills"], present: Bool[Array, "*rows"]
) -> dict[str, Float[Array, "..."]]:
    """Statistics of a batch's weights, over the rows that are not padding.

    Returns:
      `share` [skills], the share of rows whose largest weight is the skill's; `weight` [skills], the mean
      weight; `entropy` [], the mean entropy of a row's weights over their sum, in nats; `rows` [], the number
      of rows that count.
    """
    counted = present.astype(jnp.float32)[..., None]
    rows = tuple(range(weights.ndim - 1))

    def mean(values: Float[Array, "*rows last"]) -> Float[Array, "last"]:
        return (values * counted).sum(rows) / jnp.maximum(counted.sum(), 1)

    largest = weights.argmax(-1, keepdims=True) == jnp.arange(weights.shape[-1])
    shares = weights / jnp.maximum(weights.sum(-1, keepdims=True), 1e-12)
    entropy = -jnp.where(shares > 0, shares * jnp.log(jnp.where(shares > 0, shares, 1)), 0)
    return {
        "share": mean(largest.astype(jnp.float32)),
        "weight": mean(weights),
        "entropy": mean(entropy).sum(),
        "rows": counted.sum(),
    }
