"""The table of a sweep: medians over seeds for every method and task, and their mean over tasks."""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float

from poly_jax.reporting.table import latex_table, markdown_table

MEAN = "mean"

Scores = Mapping[tuple[str, str, int], float | None]


@dataclasses.dataclass(frozen=True)
class Summary:
    """Scores of a sweep, as the papers report them (arXiv 2205.05638, 2211.03831).

    Attributes:
      methods: names of the methods, in the table's order.
      tasks: names of the tasks, in the table's order.
      scores: the score of each method, task and seed; NaN where it is missing or not defined.
    """

    methods: tuple[str, ...]
    tasks: tuple[str, ...]
    scores: Float[np.ndarray, "methods tasks seeds"]

    @classmethod
    def of(
        cls, methods: Sequence[str], tasks: Sequence[str], seeds: Sequence[int], scores: Scores
    ) -> "Summary":
        """The summary of scores by (method, task, seed)."""
        found = [[[scores.get((m, t, s), np.nan) for s in seeds] for t in tasks] for m in methods]
        return cls(tuple(methods), tuple(tasks), np.array(found, np.float64))

    @property
    def medians(self) -> Float[np.ndarray, "methods tasks"]:
        """Median over seeds; NaN where the score of a seed is NaN."""
        return np.median(self.scores, axis=-1)

    @property
    def means(self) -> Float[np.ndarray, "methods"]:
        """Mean over tasks of the medians; NaN where the median of a task is NaN."""
        return self.medians.mean(axis=-1)

    @property
    def columns(self) -> tuple[str, ...]:
        """Headings of the table's columns."""
        return ("method", *self.tasks, MEAN)

    @property
    def rows(self) -> list[list[str]]:
        """Cells of the table, with one decimal; "-" for NaN."""
        values = np.concatenate([self.medians, self.means[:, None]], axis=-1)
        cells = [["-" if np.isnan(value) else f"{value:.1f}" for value in row] for row in values]
        return [[method, *row] for method, row in zip(self.methods, cells, strict=True)]

    def markdown(self) -> str:
        """The table in Markdown."""
        return markdown_table(self.columns, self.rows)

    def latex(self) -> str:
        """The table in LaTeX, for a paper that uses booktabs."""
        return latex_table(self.columns, self.rows)
