"""A router that is told the true skills of every task: what an expert would choose."""

import dataclasses

from poly_jax.routing.table import GivenRouter
from poly_jax.tasks.skillbench.compositions import benchmark, skill_matrix, tasks_of


@dataclasses.dataclass(frozen=True)
class TrueSkillsRouter(GivenRouter):
    """The expert baseline (arXiv 2202.13914, section 4): a task mixes the skills it is made of.

    Attributes:
      rows: of the benchmark's inventory, a row for every task id; found by the tasks' names.
    """

    rows: tuple[tuple[float, ...], ...] | None = None

    def for_tasks(self, names: tuple[str, ...]) -> "TrueSkillsRouter":
        """With the rows of these tasks.

        Raises:
          UserError: one of them is not of the embedded benchmark.
        """
        rows = skill_matrix(tasks_of(names))
        return dataclasses.replace(self, rows=tuple(tuple(map(float, row)) for row in rows))

    def n_skills(self, requested: int, n_tasks: int) -> int:
        """As many as the inventory has."""
        return len(benchmark().inventory.skills)
