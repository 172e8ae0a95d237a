"""A trained router's mixing weights, as one table over tasks."""

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import traverse_util
from jaxtyping import Float
from scipy.special import expit

from poly_jax.adapters.config import Adapters
from poly_jax.errors import UserError
from poly_jax.routing.learned import LearnedRouter
from poly_jax.weights import parameter_names as names
from poly_jax.weights.parameter_names import MODEL, in_layer, in_order, is_router, is_stacked, router_place

Weights = dict[str, Float[np.ndarray, "tasks splits skills"]]


def mixing_weights(adapters: Adapters, parameters: dict[str, Any]) -> Weights:
    """Evaluation weights of every task, by the place of the router that holds them.

    A router without parameters has one place, `MODEL`.

    Args:
      adapters: of the model.
      parameters: its tree; scanned layers give one place per layer.

    Raises:
      UserError: the tree lacks the parameters that the model's router has.
    """
    size = adapters.inventory_size
    places = router_leaves(parameters)
    if not adapters.router.parameters(adapters.sizes):
        places = {MODEL: {}}
    if not places:
        raise UserError("the parameters hold no router, and this model has a learned one")
    ids, shape = jnp.arange(adapters.n_tasks), (adapters.n_tasks, adapters.n_splits, size)
    return {
        place: np.broadcast_to(adapters.router.weights(leaves, ids, adapters.sizes, None), shape)
        for place, leaves in places.items()
    }


def allocations(adapters: Adapters, parameters: dict[str, Any]) -> Weights | None:
    """Which task uses which skill, `z = sigmoid(Z / temperature)` in [0, 1], before it is normalised.

    None for a router whose weights are not made of such an allocation. Args as of `mixing_weights`.
    """
    router = adapters.router
    if not isinstance(router, LearnedRouter) or router.scores not in ("sigmoid", "straight_through"):
        return None
    found = {}
    for place, leaves in router_leaves(parameters).items():
        found[place] = expit(np.asarray(leaves["logits"], np.float32) / router.temperature)
        if router.shared_skill:
            found[place][..., -1] = 1.0
    return found


def router_leaves(parameters: dict[str, Any]) -> dict[str, Mapping[str, Any]]:
    """The parameters of every router in a tree, by its place, from the input to the output."""
    places: dict[str, dict[str, Any]] = {}
    for path, leaf in traverse_util.flatten_dict(parameters, sep="/").items():
        if not is_router(path):
            continue
        parts = enumerate(leaf) if is_stacked(path) else [(0, leaf)]
        for number, part in parts:
            place = in_layer(router_place(path), number)
            places.setdefault(place, {})[names.leaf(path)] = part
    return {place: places[place] for place in in_order(places)}


def task_vectors(weights: Weights) -> Float[np.ndarray, "tasks features"]:
    """All mixing weights of a task in one row, over places, splits and skills."""
    return np.concatenate([table.reshape(len(table), -1) for table in weights.values()], axis=1)
