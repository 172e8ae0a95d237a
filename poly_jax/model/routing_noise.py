"""The random numbers of all routers of tasks in one training pass, drawn together."""

import hashlib
import math
from collections.abc import Mapping, Sequence
from typing import Any

import flax
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, PRNGKeyArray

from poly_jax.adapters.config import Adapters
from poly_jax.model.config import T5Config
from poly_jax.weights.parameter_names import is_input_router, is_router, is_stacked, module
from poly_jax.weights.sharding import constrain
from poly_jax.weights.tree import flatten, unflatten

NOISE = "noise"
"""The collection of variables that holds each router's draws beside its parameters."""

ROW_AXES = ("batch", "segments")
WEIGHT_AXES = ("heads", None)
"""The logical names of the axes of mixing weights, and of draws for them: rows, and splits and skills."""


def noise_axes(rows: int) -> tuple[str | None, ...]:
    """Return the logical names of the axes of an array of draws for rows of 1 or 2 axes."""
    return (*ROW_AXES[:rows], *WEIGHT_AXES)


def draw_name(number: int) -> str:
    """Return the name of a router's draw in the collection `noise`; draws are numbered from 0."""
    return "uniform" if number == 0 else f"uniform_{number + 1}"


def drawing_routers(adapters: Adapters, config: T5Config, parameters: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the modules of the routers of tasks whose draws can be made together.

    Routers in layers under a scan or with rematerialisation draw for themselves.

    Args:
      adapters: the model's adapters.
      config: the model's settings.
      parameters: the parameters that are applied, of which only the names are read.
    """
    if config.remat != "none" or not adapters.router.draws:
        return ()
    modules = {module(path) for path in flatten(parameters) if is_router(path) and not is_input_router(path)}
    return tuple(sorted(place for place in modules if not is_stacked(place)))


def draw_places(adapters: Adapters, routers: Sequence[str]) -> tuple[np.int32, ...]:
    """Return the place of each draw among all of them, as arguments for the program that makes them.

    Written into the program, each place would make a kernel of its own of the one that cuts a draw out.

    Args:
      adapters: as in `routing_noise`.
      routers: as in `routing_noise`.
    """
    return tuple(np.arange(len(routers) * adapters.router.draws, dtype=np.int32))


def routing_noise(
    adapters: Adapters,
    routers: Sequence[str],
    rows: Sequence[int],
    key: PRNGKeyArray,
    places: Sequence[Int[Array, ""]] | None = None,
) -> dict[str, Any]:
    """Draw the collection `noise` of one training pass from U(0, 1), with one generator for all routers.

    The numbers are those that each router would draw from the `routing` stream, for which XLA would compile
    as many generators.

    Args:
      adapters: the model's adapters; the router says how many `draws` a pass takes.
      routers: what `drawing_routers` returns.
      rows: the shape of the task ids, (batch,) or (batch, segments).
      key: the key of the stream `routing`.
      places: what `draw_places` returns, where these are arguments of the program.

    Returns:
      A nested dict with arrays [*rows, splits, skills] beside each router's parameters.
    """
    if not routers:
        return {}
    names = [(router, number) for router in routers for number in range(adapters.router.draws)]
    # Flax derives a module's key from its path and the number of keys that it has taken before.
    hashes = np.array([_hash((*router.split("/"), number + 1)) for router, number in names], np.uint32)
    keys = jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, hashes)
    shape = (*rows, adapters.sizes.n_splits, adapters.sizes.n_skills)
    # XLA compiles a draw of one axis several times faster, and its numbers are the same.
    drawn = jax.vmap(lambda key: jax.random.uniform(key, (math.prod(shape),)))(keys)
    drawn = constrain(drawn.reshape(-1, *shape), None, *noise_axes(len(rows)))
    if places is None:
        parts = jnp.unstack(drawn)
    else:
        parts = tuple(jax.lax.dynamic_index_in_dim(drawn, place, keepdims=False) for place in places)
    return unflatten(
        {
            f"{router}/{draw_name(number)}": constrain(draws, *noise_axes(len(rows)))
            for (router, number), draws in zip(names, parts, strict=True)
        }
    )


def _hash(parts: tuple[str | int, ...]) -> int:
    """What Flax folds into the key of a stream for a path (`flax.core.scope.LazyRng`, Flax 0.12)."""
    digest = hashlib.sha1()
    for part in parts:
        if flax.config.flax_fix_rng_separator:
            digest.update(b"\0")
        if isinstance(part, str):
            digest.update(part.encode())
        else:
            digest.update(part.to_bytes((part.bit_length() + 7) // 8, "big"))
    return int.from_bytes(digest.digest()[:4], "big")
