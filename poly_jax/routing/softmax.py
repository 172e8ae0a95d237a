"""The softmax over the largest of several scores, and the scores and settings that routers share."""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from poly_jax.counted import counted
from poly_jax.errors import UserError


def check_top_k(router: object, top_k: int) -> None:
    """Raise a UserError, which names the router's class, where its `top_k` is negative."""
    if top_k < 0:
        raise UserError(f"{type(router).__name__}.top_k is {top_k}; it must be 0 (keep all) or more")


def check_temperature(router: object, temperature: float) -> None:
    """Raise a UserError, which names the router's class, where its temperature is not above 0 and finite."""
    if not 0 < temperature < math.inf:
        raise UserError(f"{type(router).__name__}.temperature is {temperature}; it must be above 0")


def check_enough(router: object, top_k: int, n_skills: int) -> int:
    """Return the number of skills, after checking that `top_k` of them can be kept."""
    if top_k > n_skills:
        raise UserError(
            f"{type(router).__name__}.top_k is {top_k}, but the inventory has {counted(n_skills, 'skill')};"
            f" bind it to 1 to {n_skills}"
        )
    return n_skills


def products(
    inputs: Float[Array, "*rows width"], directions: Float[Array, "skills width"]
) -> Float[Array, "*rows skills"]:
    """The product of every input with every direction, of operands in the inputs' dtype, in float32."""
    directions = directions.astype(inputs.dtype)
    return jnp.einsum("...d,kd->...k", inputs, directions, preferred_element_type=jnp.float32)


def softmax_over_largest(
    scores: Float[Array, "*rows skills"], count: int, temperature: float = 1.0
) -> Float[Array, "*rows skills"]:
    """`softmax(scores / temperature)` over the `count` largest scores, and 0 elsewhere; 0 keeps all."""
    if count:
        places = jax.lax.top_k(scores, count)[1]
        kept = jax.nn.one_hot(places, scores.shape[-1], dtype=bool).any(-2)
        scores = jnp.where(kept, scores, -jnp.inf)
    return jax.nn.softmax(scores / temperature, axis=-1)
