"""The mixing weights of trained routers, as tables over tasks."""

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float
from scipy.special import expit

from poly_jax.adapters.config import Adapters
from poly_jax.errors import UserError
from poly_jax.routing.learned import LearnedRouter
from poly_jax.weights.layer_trees import unstack_layers
from poly_jax.weights.parameter_names import MODEL, by_module, in_order, is_router, router_place
from poly_jax.weights.tree import flatten, split

Weights = dict[str, Float[np.ndarray, "tasks splits skills"]]


def mixing_weights(adapters: Adapters, parameters: dict[str, Any]) -> Weights:
    """Mixing weights of every task in evaluation, by the place of the router.

    A router without parameters has one place, `MODEL`.

    Args:
      adapters: the model's adapters.
      parameters: the model's parameters; scanned layers have a place for each layer.

    Raises:
      UserError: the tree lacks the parameters that the model's router has.
    """
    size = adapters.inventory_size
    places = router_leaves(parameters)
    if not adapters.router.parameters(adapters.sizes):
        places = {MODEL: {}}
    if not places:
        raise UserError(
            "the parameters hold no router, and this model has a learned one; give the run's own parameters"
        )
    ids, shape = jnp.arange(adapters.n_tasks), (adapters.n_tasks, adapters.n_splits, size)
    return {
        place: np.broadcast_to(adapters.router.weights(leaves, ids, adapters.sizes, None), shape)
        for place, leaves in places.items()
    }


def allocations(adapters: Adapters, parameters: dict[str, Any]) -> Weights | None:
    """The allocation of skills to tasks, `z = sigmoid(Z / temperature)` in [0, 1], before normalisation.

    It is None for a router without such an allocation. The arguments are the same as in `mixing_weights`.
    """
    router = adapters.router
    if not isinstance(router, LearnedRouter) or not router.allocates:
        return None
    found = {}
    for place, leaves in router_leaves(parameters).items():
        found[place] = expit(np.asarray(leaves["logits"], np.float32) / router.temperature)
        if router.shared_skill:
            found[place][..., -1] = 1.0
    return found


def router_leaves(parameters: dict[str, Any]) -> dict[str, Mapping[str, Any]]:
    """The parameters of every router in a tree, by the router's place, from the input to the output."""
    routers, _ = split(parameters, is_router)
    modules = by_module(flatten(unstack_layers(routers)))
    places = {router_place(module): leaves for module, leaves in modules.items()}
    return {place: places[place] for place in in_order(places)}


def task_vectors(weights: Weights) -> Float[np.ndarray, "tasks features"]:
    """All mixing weights of a task in one row, over places, splits and skills."""
    return np.concatenate([table.reshape(len(table), -1) for table in weights.values()], axis=1)
