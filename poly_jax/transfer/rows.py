"""Rows of a router for new tasks, and the tasks' parts of their skills, which start from old tasks."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from poly_jax.adapters.skill import TaskSkill
from poly_jax.errors import UserError
from poly_jax.model.parameters import parameter_shapes
from poly_jax.model.transformer import Transformer
from poly_jax.weights.parameter_names import axis as axis_of
from poly_jax.weights.parameter_names import is_private, is_router
from poly_jax.weights.tree import flatten, unflatten

Tree = dict[str, Any]


def averaged_rows(model: Transformer, parameters: Tree, tasks: Sequence[int], n_new: int) -> Tree:
    """The routers' parameters for new tasks: for every router, the mean of the rows of some old tasks.

    Parameters of a router that do not belong to a task are not changed. The task's part of a skill, such as
    MTL-LoRA's matrix, is averaged with the row that it was trained with. A private skill is not.

    Args:
      model: the model of the old tasks.
      parameters: all of its parameters, or those of its adapters.
      tasks: ids of the old tasks.
      n_new: number of new tasks, which all get this row.

    Raises:
      UserError: the router has no rows.
    """
    _, axes = parameter_shapes(model)
    names = flatten(axes)

    def start(path: str, leaf: jax.Array) -> jax.Array:
        axis = axis_of(path, "tasks", tuple(names[path]))
        if axis is None:
            return leaf
        row = jnp.take(leaf, jnp.asarray(tasks), axis=axis).mean(axis=axis, keepdims=True)
        return jnp.repeat(row, n_new, axis=axis)

    parts = model.adapters is not None and isinstance(model.adapters.skill, TaskSkill)
    rows = {
        path: start(path, leaf)
        for path, leaf in flatten(parameters).items()
        if is_router(path) or (parts and is_private(path))
    }
    if not rows:
        raise UserError("the run's router has no rows to start from; leave init_router_from unset")
    return unflatten(rows)
