"""A router that is given the true skills of every task."""

import dataclasses

from poly_jax.routing.table import GivenRouter
from poly_jax.tasks.skillbench.compositions import benchmark, skill_matrix, tasks_of


@dataclasses.dataclass(frozen=True)
class TrueSkillsRouter(GivenRouter):
    """The expert baseline (arXiv 2202.13914, section 4): each task mixes its own true skills.

    Attributes:
      rows: skills of the benchmark's inventory that each task id uses, found by the tasks' names.
    """

    rows: tuple[tuple[float, ...], ...] | None = None

    def for_tasks(self, names: tuple[str, ...]) -> "TrueSkillsRouter":
        """Return the router with the true skills of these tasks.

        Raises:
          UserError: a task does not belong to the embedded benchmark.
        """
        rows = skill_matrix(tasks_of(names))
        return dataclasses.replace(self, rows=tuple(tuple(map(float, row)) for row in rows))

    def n_skills(self, requested: int, n_tasks: int) -> int:
        """Return the number of skills in the benchmark's inventory."""
        return len(benchmark().inventory.skills)
