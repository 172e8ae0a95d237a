"""The mixing weights of all routers of tasks in one training pass, computed together."""

import functools
import hashlib
import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import flax
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray

from poly_jax.adapters.config import Adapters
from poly_jax.model.config import T5Config
from poly_jax.weights.parameter_names import (
    ROUTER,
    STACKED,
    by_module,
    is_input_router,
    is_router,
    is_stacked,
    module,
)
from poly_jax.weights.tree import flatten, unflatten

JOINT = "joint_routing"
"""The collection of variables that holds each router's `weights`, where they are computed together."""

PACKED = f"{STACKED}/{ROUTER}"
"""The place of the parameters of all routers on a new first axis, where a training state has them so."""

Places = Sequence[Int[Array, ""] | np.int32]
"""The place of each router among those whose weights are computed together."""


def joint_routers(adapters: Adapters, config: T5Config, parameters: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the modules of the routers of tasks whose weights can be computed together.

    Routers in layers under a scan or with rematerialisation draw from keys of their own.

    Args:
      adapters: the model's adapters.
      config: the model's settings.
      parameters: the parameters that are applied, of which only the names are read.
    """
    if config.remat != "none":
        return ()
    modules = {module(path) for path in flatten(parameters) if is_router(path) and not is_input_router(path)}
    return tuple(sorted(place for place in modules if not is_stacked(place)))


def places_of(routers: Sequence[str]) -> tuple[np.int32, ...]:
    """Return the place of each router among all of them, as arguments for the program of a step.

    Written into the program, each place would make a different kernel of the one that cuts a router's part
    out, and XLA would compile as many of them as there are routers.
    """
    return tuple(np.arange(len(routers), dtype=np.int32))


def joint_tables(
    adapters: Adapters, routers: Sequence[str], parameters: Mapping[str, Any], places: Places | None = None
) -> dict[str, Float[Array, "routers *shape"]]:
    """Return the parameters of all routers, each on a new first axis.

    Args:
      adapters: the model's adapters.
      routers: what `joint_routers` returns.
      parameters: parameters that hold those of the routers, each in its own place or all in that of `PACKED`.
      places: what `places_of` returns, where these are arguments of the program.
    """
    owned = by_module(flatten(parameters))
    if PACKED in owned:
        return owned[PACKED]
    places = places_of(routers) if places is None else places
    return {
        name: _stacked(tuple(owned[router][name] for router in routers), places)
        for name in adapters.router.parameters(adapters.sizes)
    }


def joint_weights(
    adapters: Adapters,
    routers: Sequence[str],
    tables: Mapping[str, Float[Array, "routers ..."]],
    task_ids: Int[Array, "*rows"],
    key: PRNGKeyArray,
    places: Places | None = None,
) -> dict[str, Any]:
    """Compute the collection `joint_routing` of one training pass.

    The numbers are those that each router would compute on its own, with its own draws, for which XLA would
    compile every operation of a router as often as there are routers.

    Args:
      adapters: the model's adapters.
      routers: what `joint_routers` returns.
      tables: what `joint_tables` returns.
      task_ids: the task of everything that has a mix of its own.
      key: the key of the stream `routing`.
      places: what `places_of` returns, where these are arguments of the program.

    Returns:
      A nested dict with `weights` [*rows, splits, skills] in the place of each router's parameters.
    """
    if not routers:
        return {}
    if places is None:
        places = places_of(routers)

    def weights(
        own: Mapping[str, Float[Array, "..."]], place: Int[Array, ""]
    ) -> Float[Array, "*rows_or_none splits skills"]:
        numbers = itertools.count(1)

        def uniform(shape: tuple[int, ...]) -> Float[Array, "..."]:
            # Flax derives a module's key from its path and the number of keys that it has taken before.
            number = next(numbers)
            hashes = np.array([_hash((*router.split("/"), number)) for router in routers], np.uint32)
            own_key = jax.random.fold_in(key, jnp.asarray(hashes)[place])
            # XLA compiles a draw of one axis several times faster, and its numbers are the same.
            return jax.random.uniform(own_key, (math.prod(shape),)).reshape(shape)

        return adapters.router.weights(own, task_ids, adapters.sizes, uniform)

    found = jax.vmap(weights)(dict(tables), jnp.arange(len(routers)))
    parts = zip(routers, _cut(found, places), strict=True)
    return unflatten({f"{router}/weights": part for router, part in parts})


@jax.custom_vjp
def _stacked(parts: Sequence[Float[Array, "*shape"]], places: Places) -> Float[Array, "parts *shape"]:
    """The parts on a new first axis. Their gradients are cut out at the places."""
    return jnp.stack(parts)


@jax.custom_vjp
def _cut(whole: Float[Array, "parts *shape"], places: Places) -> tuple[Float[Array, "*shape"], ...]:
    """The parts at the places 0, 1, ... of the first axis. Their gradients are stacked, not added up."""
    cut = functools.partial(jax.lax.dynamic_index_in_dim, keepdims=False, allow_negative_indices=False)
    return tuple(cut(whole, place) for place in places)


_stacked.defvjp(
    lambda parts, places: (_stacked(parts, places), places),
    lambda places, change: (_cut(change, places), None),
)
_cut.defvjp(
    lambda whole, places: (_cut(whole, places), places),
    lambda places, changes: (_stacked(changes, places), None),
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
