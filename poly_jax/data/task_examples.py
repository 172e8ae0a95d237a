"""All examples of a task's split in memory, as tokens without padding."""

import dataclasses
from collections.abc import Sequence

import numpy as np
from jaxtyping import Int

from poly_jax.data.packing import Example

Ids = Int[np.ndarray, "tokens"]


@dataclasses.dataclass(frozen=True)
class Ragged:
    """Rows of different lengths.

    Attributes:
      tokens: all rows, one after another; 16 bits a token where the ids allow it.
      ends: place in `tokens` behind each row.
    """

    tokens: Ids
    ends: Int[np.ndarray, "rows"]

    @classmethod
    def of(cls, tokens: Sequence[Ids], lengths: Sequence[Int[np.ndarray, "_"]]) -> "Ragged":
        """Join the tokens, and the lengths, of several groups of rows."""
        joined = np.concatenate([np.zeros(0, np.uint16), *tokens])
        return cls(joined, np.cumsum(np.concatenate([np.zeros(0, np.int64), *lengths])))

    def __len__(self) -> int:
        return len(self.ends)

    def row(self, number: int) -> Ids:
        """Return the tokens of a row."""
        return self.tokens[self.ends[number - 1] if number else 0 : self.ends[number]]

    def slice(self, rows: slice) -> "Ragged":
        """Return some adjacent rows, without a copy of their tokens."""
        begin = self.ends[rows.start - 1] if rows.start else 0
        ends = self.ends[rows] - begin
        return Ragged(self.tokens[begin : begin + ends[-1]] if len(ends) else self.tokens[:0], ends)


@dataclasses.dataclass(frozen=True)
class Choices:
    """Answer choices of every row.

    Attributes:
      tokens: tokens of each choice, filled up with 0; a choice without tokens is absent.
      labels: index of the correct choice.
    """

    tokens: Int[np.ndarray, "rows choices length"]
    labels: Int[np.ndarray, "rows"]


@dataclasses.dataclass(frozen=True)
class TaskExamples:
    """The examples of a split of a task, in the order of its source.

    Attributes:
      name: the task's name.
      task: the task's id.
      inputs: tokens of the inputs.
      targets: tokens of the targets.
      choices: the answer choices; None for examples without.
      example_ids: equal for the rows of one example; None where each row is an example of its own.
    """

    name: str
    task: int
    inputs: Ragged
    targets: Ragged
    choices: Choices | None = None
    example_ids: Int[np.ndarray, "rows"] | None = None

    def __len__(self) -> int:
        return len(self.inputs)

    def example(self, row: int, draw: tuple[int, int] | None = None) -> Example:
        """Return the tokens of a row; `draw` says where it was drawn."""
        return Example(self.inputs.row(row), self.targets.row(row), self.task, draw)
