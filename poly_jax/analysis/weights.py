"""A trained router's mixing weights, as one table over tasks."""

from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import traverse_util
from jaxtyping import Float

from poly_jax.adapters.config import Adapters
from poly_jax.errors import UserError
from poly_jax.training.partition import is_router

Weights = dict[str, Float[np.ndarray, "tasks splits skills"]]


def mixing_weights(adapters: Adapters, parameters: dict[str, Any]) -> Weights:
    """Evaluation weights of every task, by the place of the router that holds them.

    Args:
      adapters: of the model.
      parameters: its tree; scanned layers give one place per layer.

    Raises:
      UserError: the model's router has no parameters.
    """
    places: dict[str, dict[str, Any]] = {}
    for path, leaf in traverse_util.flatten_dict(parameters, sep="/").items():
        if not is_router(path):
            continue
        above, _, name = path.rpartition("/")
        place = above.removesuffix("router").rstrip("/") or "model"
        if "/layers/" in f"/{place}/":
            for i, part in enumerate(leaf):
                layer = f"/{place}/".replace("/layers/", f"/layers_{i}/").strip("/")
                places.setdefault(layer, {})[name] = part
        else:
            places.setdefault(place, {})[name] = leaf
    if not places:
        raise UserError("this model's router has no parameters: every task's mix is fixed")
    ids = jnp.arange(adapters.n_tasks)
    return {
        place: np.asarray(
            adapters.router.weights(leaves, ids, adapters.n_splits, adapters.inventory_size, None)
        )
        for place, leaves in sorted(places.items())
    }


def task_vectors(weights: Weights) -> Float[np.ndarray, "tasks features"]:
    """All mixing weights of a task in one row, over places, splits and skills."""
    return np.concatenate([table.reshape(len(table), -1) for table in weights.values()], axis=1)
