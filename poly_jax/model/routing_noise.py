"""The random numbers of all routers of tasks in one training pass, drawn together."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from poly_jax.adapters.config import Adapters
from poly_jax.weights.parameter_names import is_input_router, is_router, module
from poly_jax.weights.sharding import constrain
from poly_jax.weights.tree import flatten, unflatten

NOISE = "noise"
"""The collection of variables that holds each router's draws beside its parameters."""

ROW_AXES = ("batch", "segments")
WEIGHT_AXES = ("heads", None)
"""The logical names of the axes of mixing weights, and of draws for them: rows, and splits and skills."""


def noise_axes(ndim: int, rows: int) -> tuple[str | None, ...]:
    """Return the logical names of the axes of an array of draws for rows of 1 or 2 axes."""
    return (*[None] * (ndim - rows - 2), *ROW_AXES[:rows], *WEIGHT_AXES)


def draw_name(number: int) -> str:
    """Return the name of a router's draw in the collection `noise`; draws are numbered from 0."""
    return "uniform" if number == 0 else f"uniform_{number + 1}"


def routing_noise(
    adapters: Adapters, parameters: Mapping[str, Any], rows: Sequence[int], key: PRNGKeyArray
) -> dict[str, Any]:
    """Draw the collection `noise` of one training pass from U(0, 1), with one generator for all routers.

    Each router would otherwise have a generator of its own in the program, which XLA compiles one by one.

    Args:
      adapters: the model's adapters; the router says how many `draws` a pass takes.
      parameters: the parameters that are applied, or their shapes, of which those of routers are looked at.
      rows: the shape of the task ids, (batch,) or (batch, segments).
      key: the pass's key.

    Returns:
      A nested dict with arrays [*rows, splits, skills] beside each router's parameters, and the layers on a
      first axis where they are stacked. It is empty where routers draw nothing.
    """
    count, sizes = adapters.router.draws, adapters.sizes
    if not count:
        return {}
    specs = adapters.router.parameters(sizes)
    layers: dict[str, tuple[int, ...]] = {}
    for path, leaf in flatten(parameters).items():
        if is_router(path) and not is_input_router(path):
            own = len(specs[path.removeprefix(f"{module(path)}/")].shape)
            layers[module(path)] = leaf.shape[: leaf.ndim - own]
    shapes = {
        f"{place}/{draw_name(number)}": (*stacked, *rows, sizes.n_splits, sizes.n_skills)
        for place, stacked in layers.items()
        for number in range(count)
    }
    lengths = [math.prod(shape[: -2 - len(rows)]) for shape in shapes.values()]
    each = (*rows, sum(lengths), sizes.n_splits, sizes.n_skills)
    # XLA compiles a draw of one axis several times faster, and its numbers are the same. Rows come first, so
    # that each device draws those of its own.
    drawn = jax.random.uniform(key, (math.prod(each),)).reshape(each)
    drawn = constrain(drawn, *ROW_AXES[: len(rows)], None, *WEIGHT_AXES)
    parts = zip(shapes.items(), jax.lax.split(drawn, lengths, axis=len(rows)), strict=True)
    return unflatten({path: _laid_out(part, shape, len(rows)) for (path, shape), part in parts})


def _laid_out(
    part: Float[Array, "*rows parts splits skills"], shape: tuple[int, ...], rows: int
) -> Float[Array, "*shape"]:
    """Put the parts of the layers before the rows."""
    draws = jnp.moveaxis(part, rows, 0).reshape(shape)
    return constrain(draws, *noise_axes(draws.ndim, rows))
