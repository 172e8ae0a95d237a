"""The examples of many tasks in memory, as tokens without padding."""

import dataclasses
from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Int

from poly_jax.data.packing import Example

Ids = Int[np.ndarray, "tokens"]
Rows = Int[np.ndarray, "rows"]
PerDraw = Int[np.ndarray, "draws"]


@dataclasses.dataclass(frozen=True)
class Ragged:
    """Rows of different lengths.

    Attributes:
      tokens: all rows, one after another; 16 bits a token where the ids allow it.
      borders: place in `tokens` of the beginning of each row, and of the end of the last.
    """

    tokens: Ids
    borders: Int[np.ndarray, "rows_and_end"]

    @classmethod
    def of(cls, tokens: Sequence[Ids], lengths: Sequence[Int[np.ndarray, "_"]]) -> "Ragged":
        """Join the tokens, and the lengths, of several groups of rows."""
        joined = np.concatenate([np.zeros(0, np.uint16), *tokens])
        return cls(joined, np.cumsum(np.concatenate([np.zeros(1, np.int64), *lengths])))

    def __len__(self) -> int:
        return len(self.borders) - 1

    def rows(self, numbers: Int[np.ndarray, "n"]) -> list[Ids]:
        """Return the tokens of some rows, without copies."""
        begins, ends = self.borders[numbers].tolist(), self.borders[numbers + 1].tolist()
        return [self.tokens[begin:end] for begin, end in zip(begins, ends, strict=True)]


@dataclasses.dataclass(frozen=True)
class Choices:
    """Answer choices of every row.

    Attributes:
      texts: the tokens of all choices, one row after another; a choice without tokens is absent.
      borders: number in `texts` of the first choice of each row, and the number of all.
      labels: index of the correct choice of each row.
    """

    texts: Ragged
    borders: Int[np.ndarray, "rows_and_end"]
    labels: Rows

    @property
    def most(self) -> int:
        """The largest number of choices of a row, absent ones included."""
        return int(np.diff(self.borders).max(initial=0))


@dataclasses.dataclass(frozen=True)
class ExampleRows:
    """Rows with an input, a target and a task each.

    Attributes:
      inputs: tokens of the inputs.
      targets: tokens of the targets.
      tasks: id of each row's task.
      example_ids: equal for the rows of one example of a task.
      choices: the answer choices; None where no row has any.
    """

    inputs: Ragged
    targets: Ragged
    tasks: Rows
    example_ids: Rows
    choices: Choices | None = None

    def __len__(self) -> int:
        return len(self.tasks)

    def examples(self, numbers: Int[np.ndarray, "n"]) -> list[Example]:
        """Return some rows one by one."""
        tasks = self.tasks[numbers].tolist()
        return list(map(Example, self.inputs.rows(numbers), self.targets.rows(numbers), tasks))


@dataclasses.dataclass(frozen=True)
class ReadTasks:
    """The rows of some tasks, in which those of one task are adjacent and in the order of its source.

    Attributes:
      rows: the rows of all tasks.
      begins: number of the first row of each task.
      sizes: number of rows of each task.
      random: whether a task's preprocessors may make different rows when they run again.
      choices: whether the rows of a task have answer choices.
    """

    rows: ExampleRows
    begins: Int[np.ndarray, "tasks"]
    sizes: Int[np.ndarray, "tasks"]
    random: Bool[np.ndarray, "tasks"]
    choices: Bool[np.ndarray, "tasks"]

    def of_task(self, task: int) -> Rows:
        """Return the numbers of a task's rows."""
        return np.arange(self.begins[task], self.begins[task] + self.sizes[task])
