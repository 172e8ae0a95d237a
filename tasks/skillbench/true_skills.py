"""A router that is told the true skills of every task: what routing could reach."""

import dataclasses
from collections.abc import Mapping

import gin
from jaxtyping import Array, Float, Int

from poly_jax.errors import UserError
from poly_jax.routing.fixed import FixedRouter
from poly_jax.routing.router import Uniform
from poly_jax.routing.table import TableRouter
from poly_jax.tasks.skillbench.compositions import benchmark, skill_matrix


@gin.configurable(module="skillbench")
@dataclasses.dataclass(frozen=True)
class TrueSkillsRouter(FixedRouter):
    """The expert baseline (arXiv 2202.13914, section 4): a task mixes the skills it is made of.

    Attributes:
      rows: a row of the benchmark's inventory for every task id, by the tasks' names.
    """

    rows: tuple[tuple[float, ...], ...] = ()

    def for_tasks(self, names: tuple[str, ...]) -> "TrueSkillsRouter":
        """With the rows of these tasks.

        Raises:
          UserError: one of them is not of the embedded benchmark.
        """
        bench = benchmark()
        known = {task.name: task for task in (*bench.train, *bench.heldout, *bench.tuning)}
        # The opaque name is a part of the registered one: skillbench_qrt, skillbench_nameless_qrt_seed3.
        opaque = [next((part for part in name.split("_") if part in known), None) for name in names]
        for name, part in zip(names, opaque, strict=True):
            if part is None:
                raise UserError(
                    f"TrueSkillsRouter knows the tasks of the embedded benchmark only, not {name!r}"
                )
        rows = skill_matrix([known[part] for part in opaque if part is not None])
        return dataclasses.replace(self, rows=tuple(tuple(map(float, row)) for row in rows))

    def n_skills(self, requested: int, n_tasks: int) -> int:
        """As many as the inventory has."""
        return len(benchmark().inventory.skills)

    def weights(
        self,
        parameters: Mapping[str, Float[Array, "..."]],
        task_ids: Int[Array, "*rows"],
        n_splits: int,
        n_skills: int,
        uniform: Uniform | None,
    ) -> Float[Array, "*rows splits skills"]:
        """The row of each task, for every head."""
        return TableRouter(rows=self.rows).weights(parameters, task_ids, n_splits, n_skills, uniform)
