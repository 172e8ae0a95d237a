"""Routers without parameters: equal weights, one skill for all tasks, one skill for each task."""

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from poly_jax.routing.router import Parameters, Router, Sizes, Uniform


@dataclasses.dataclass(frozen=True)
class AverageRouter(Router):
    """Every skill has weight 1/K for every task (MHR-mu before its skills are collapsed)."""

    serves_any_task: ClassVar[bool] = True

    def weights(
        self, parameters: Parameters, task_ids: Int[Array, "*rows"], sizes: Sizes, uniform: Uniform | None
    ) -> Float[Array, "splits skills"]:
        """1/K everywhere, one mix that all rows share."""
        return jnp.full((sizes.n_splits, sizes.n_skills), 1 / sizes.n_skills, jnp.float32)


@dataclasses.dataclass(frozen=True)
class SharedRouter(AverageRouter):
    """One skill that all tasks use: an ordinary adapter."""

    def n_skills(self, requested: int, n_tasks: int) -> int:
        """1, whatever number is requested."""
        return 1


@dataclasses.dataclass(frozen=True)
class PrivateRouter(Router):
    """A skill for every task, which only that task uses."""

    owns_skills: ClassVar[bool] = True

    def n_skills(self, requested: int, n_tasks: int) -> int:
        """The number of tasks: each has a skill of its own."""
        return n_tasks

    def weights(
        self, parameters: Parameters, task_ids: Int[Array, "*rows"], sizes: Sizes, uniform: Uniform | None
    ) -> Float[Array, "*rows splits skills"]:
        """1 at the task's own skill, 0 at every other."""
        one_hot = jax.nn.one_hot(task_ids, sizes.n_skills, dtype=jnp.float32)
        return jnp.broadcast_to(one_hot[..., None, :], (*task_ids.shape, sizes.n_splits, sizes.n_skills))
