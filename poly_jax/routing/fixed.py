"""Routers without parameters: every task alike, one skill for all, one skill a task."""

import dataclasses
from collections.abc import Mapping
from typing import ClassVar

import gin
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from poly_jax.routing.router import Router, Uniform


@gin.configurable
@dataclasses.dataclass(frozen=True)
class AverageRouter(Router):
    """Every skill has weight 1/K for every task (MHR-mu before its skills are collapsed)."""

    def weights(
        self,
        parameters: Mapping[str, Float[Array, "..."]],
        task_ids: Int[Array, "*rows"],
        n_splits: int,
        n_skills: int,
        uniform: Uniform | None,
    ) -> Float[Array, "splits skills"]:
        """1/K everywhere, shared by all rows."""
        return jnp.full((n_splits, n_skills), 1 / n_skills, jnp.float32)


@gin.configurable
@dataclasses.dataclass(frozen=True)
class SharedRouter(AverageRouter):
    """One skill that all tasks use: an ordinary adapter."""

    def n_skills(self, requested: int, n_tasks: int) -> int:
        """Always 1."""
        return 1


@gin.configurable
@dataclasses.dataclass(frozen=True)
class PrivateRouter(Router):
    """A skill for every task, which only that task uses."""

    owns_skills: ClassVar[bool] = True

    def n_skills(self, requested: int, n_tasks: int) -> int:
        """As many as tasks."""
        return n_tasks

    def weights(
        self,
        parameters: Mapping[str, Float[Array, "..."]],
        task_ids: Int[Array, "*rows"],
        n_splits: int,
        n_skills: int,
        uniform: Uniform | None,
    ) -> Float[Array, "*rows splits skills"]:
        """One-hot at the task's own skill."""
        one_hot = jax.nn.one_hot(task_ids, n_skills, dtype=jnp.float32)
        return jnp.broadcast_to(one_hot[..., None, :], (*task_ids.shape, n_splits, n_skills))
