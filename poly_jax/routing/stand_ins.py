"""A router for tasks without a row, which use the rows of tasks that another router knows."""

import dataclasses
from typing import ClassVar

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from poly_jax.routing.router import Parameters, Router, Sizes, Uniform
from poly_jax.weights.parameter_spec import ParameterSpec


@dataclasses.dataclass(frozen=True)
class StandInRows(Router):
    """Mixes skills for a task by a sum of the weights of known tasks: `w_t = sum_s c_ts w_s`.

    A task that the router knows has a share of 1 in itself. The parameters are those of the known tasks'
    router.

    Attributes:
      known: router of the known tasks.
      n_known: number of the known tasks.
      shares: c_ts, the shares of the known tasks s for each task t, which sum to 1 and may be negative.
    """

    names_tasks: ClassVar[bool] = True
    known: Router
    n_known: int
    shares: tuple[tuple[float, ...], ...]

    def n_skills(self, requested: int, n_tasks: int) -> int:
        """The number of skills that the known tasks' router mixes."""
        return self.known.n_skills(requested, self.n_known)

    def parameters(self, sizes: Sizes) -> dict[str, ParameterSpec]:
        """The parameters of the known tasks' router."""
        return self.known.parameters(self._known_sizes(sizes))

    def weights(
        self, parameters: Parameters, task_ids: Int[Array, "*rows"], sizes: Sizes, uniform: Uniform | None
    ) -> Float[Array, "*rows_or_none splits skills"]:
        """The sums of the known tasks' weights, for each row's task."""
        ids = jnp.arange(self.n_known)
        known = self.known.weights(parameters, ids, self._known_sizes(sizes), uniform)
        if known.ndim == 2:
            return known
        return jnp.tensordot(jnp.asarray(self.shares, jnp.float32), known, axes=1)[jnp.asarray(task_ids)]

    def _known_sizes(self, sizes: Sizes) -> Sizes:
        return dataclasses.replace(sizes, n_tasks=self.n_known)
