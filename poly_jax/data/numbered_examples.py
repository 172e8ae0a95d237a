"""The examples of each task by number, and the row that a draw of an example takes."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool

from poly_jax.data.example_rows import PerDraw, ReadTasks
from poly_jax.data.keyed_random import random_key, uniform


class NumberedExamples:
    """The examples of tasks, of which some have one row for each of their possible targets.

    Args:
      read: the rows of the tasks.
      names: names of the tasks.
      several: whether the examples of a task have one row for each target, of which a draw takes one.
      seed: seed of the targets that are drawn.
    """

    def __init__(
        self, read: ReadTasks, names: Sequence[str], several: Bool[np.ndarray, "tasks"], seed: int
    ) -> None:
        self.rows = read.rows
        self.sizes = read.sizes.copy()
        """Number of examples of each task."""
        self._begins, self._several = read.begins, several
        # Where examples have several rows: the place in `_borders` of each task's first example.
        self._firsts = np.zeros(len(names), np.int64)
        self._keys = np.zeros(len(names), np.uint64)
        borders = [np.zeros(0, np.int64)]
        end = 0
        for task in np.flatnonzero(several).tolist():
            numbers = read.of_task(task)
            begins = np.flatnonzero(np.diff(read.rows.example_ids[numbers], prepend=-1))
            borders.append(numbers[0] + np.append(begins, len(numbers)) if len(numbers) else numbers)
            self.sizes[task], self._firsts[task], end = len(begins), end, end + len(borders[-1])
            self._keys[task] = random_key(seed, "targets", names[task])
        self._borders = np.concatenate(borders)

    def find(self, tasks: PerDraw, examples: PerDraw, draws: PerDraw) -> PerDraw:
        """Return the rows that draws take.

        Args:
          tasks: index of the task of each draw.
          examples: number of the example that is drawn.
          draws: number of earlier draws of the same task.
        """
        found = self._begins[tasks] + examples
        several = np.flatnonzero(self._several[tasks])
        if len(several):
            tasks = tasks[several]
            places = self._firsts[tasks] + examples[several]
            begins, counts = self._borders[places], self._borders[places + 1] - self._borders[places]
            shares = uniform(self._keys[tasks], draws[several])
            found[several] = begins + (shares * counts).astype(np.int64)
        return found
