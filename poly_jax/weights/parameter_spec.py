"""The description of a parameter before it exists."""

import dataclasses
from collections.abc import Callable

import jax
from jaxtyping import Array, Float, PRNGKeyArray

Initializer = Callable[..., Float[Array, "..."]]


@dataclasses.dataclass(frozen=True)
class ParameterSpec:
    """Shape, initialiser and logical axis names of one parameter.

    The rules in `poly_jax.weights.sharding` map axis names to mesh axes. An axis without a rule is not
    sharded.
    """

    shape: tuple[int, ...]
    init: Initializer
    axes: tuple[str, ...]


def uniform_init(bound: float) -> Initializer:
    """An initialiser that draws from U(-bound, bound)."""

    def init(key: PRNGKeyArray, shape: tuple[int, ...], dtype=jax.numpy.float32) -> Float[Array, "..."]:
        return jax.random.uniform(key, shape, dtype, -bound, bound)

    return init
