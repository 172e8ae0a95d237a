"""A router for tasks without a row, which use the rows of tasks that another router knows."""

import dataclasses
from typing import ClassVar

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from poly_jax.routing.router import Parameters, Router, Sizes, Uniform
from poly_jax.weights.parameter_spec import ParameterSpec


@dataclasses.dataclass(frozen=True)
class StandInRows(Router):
    """Mixes skills for a task by the mean weights of some known tasks: `w_t = 1/|S_t| sum_(s in S_t) w_s`.

    A task that the router knows has only itself in S_t. The parameters are those of the known tasks' router.

    Attributes:
      known: router of the known tasks.
      n_known: number of the known tasks.
      rows: for each task, the ids of the known tasks in S_t.
    """

    names_tasks: ClassVar[bool] = True
    known: Router
    n_known: int
    rows: tuple[tuple[int, ...], ...]

    def n_skills(self, requested: int, n_tasks: int) -> int:
        """As many as the known tasks have."""
        return self.known.n_skills(requested, self.n_known)

    def parameters(self, sizes: Sizes) -> dict[str, ParameterSpec]:
        """The parameters of the known tasks' router."""
        return self.known.parameters(self._known_sizes(sizes))

    def weights(
        self, parameters: Parameters, task_ids: Int[Array, "*rows"], sizes: Sizes, uniform: Uniform | None
    ) -> Float[Array, "*rows_or_none splits skills"]:
        """The mean weights of the tasks that stand in for each row's task."""
        ids = jnp.arange(self.n_known)
        known = self.known.weights(parameters, ids, self._known_sizes(sizes), uniform)
        if known.ndim == 2:
            return known
        shares = np.zeros((len(self.rows), self.n_known), np.float32)
        for share, tasks in zip(shares, self.rows, strict=True):
            share[list(tasks)] = 1 / len(tasks)
        return jnp.tensordot(jnp.asarray(shares), known, axes=1)[jnp.asarray(task_ids)]

    def _known_sizes(self, sizes: Sizes) -> Sizes:
        return dataclasses.replace(sizes, n_tasks=self.n_known)
