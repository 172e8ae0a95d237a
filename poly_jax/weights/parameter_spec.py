"""The description of a parameter before it exists."""

import dataclasses
import math
from collections.abc import Callable

import jax
from jaxtyping import Array, Float, PRNGKeyArray

from poly_jax.weights.sharding import devices_in_force

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
        # XLA compiles a draw of one axis several times faster, and its numbers are the same. Devices that
        # share an array draw their own parts of it, which they could not cut out of one axis.
        drawn = (math.prod(shape),) if devices_in_force() == 1 else shape
        return jax.random.uniform(key, drawn, dtype, -bound, bound).reshape(shape)

    return init
