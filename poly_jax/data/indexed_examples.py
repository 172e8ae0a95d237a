"""The endless sequence of a mixture's examples, held in memory, where any place can be computed."""

import dataclasses
import hashlib
import itertools
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Int

from poly_jax.data.draw_order import DrawOrder
from poly_jax.data.keyed_random import permutation, random_key, uniform
from poly_jax.data.packing import Example
from poly_jax.data.position import ADVICE, read_position, write_position
from poly_jax.data.routed import RoutedTask
from poly_jax.data.task_examples import TaskExamples
from poly_jax.data.task_reader import Read, TaskReader
from poly_jax.errors import UserError

# Orders of a task's examples that are kept: examples that wait to be packed may belong to the epoch before.
_EPOCHS_KEPT = 2
# seqio takes seeds of 32 bits, and adds small numbers to them.
_SEEDS = 2**31 - 2**20

Draw = tuple[int, int]
"""The index of a task, and the number of earlier draws of the same task."""


class IndexedExamples:
    """Draws the examples of a mixture without end.

    Tasks are drawn by `DrawOrder`. Each task goes through its examples epoch by epoch, in an order that is
    random in each. Whatever is random is a function of the seed, the task's name and the number of the draw.
    So a position is two numbers, and every host of a run can take its own part of the same sequence.
    """

    def __init__(
        self,
        reader: TaskReader,
        tasks: Mapping[RoutedTask, float],
        seed: int,
        shuffle: bool,
        settings: Mapping[str, Any],
    ) -> None:
        """Reads the examples of all tasks.

        Args:
          reader: reads a task, with a row for each possible target of an example.
          tasks: the tasks and their rates, above 0.
          seed: seed of the order of tasks and examples, and of the tasks' own preprocessors.
          shuffle: whether each task's examples are shuffled.
          settings: settings that must be the same to restore a position, beside the examples themselves.

        Raises:
          UserError: a task has no example, or cannot be read.
        """
        self._reader, self._seed, self._shuffle = reader, seed, shuffle
        self._tasks = sorted(tasks, key=lambda task: task.name)
        rates = {task.name: float(tasks[task]) for task in self._tasks}
        self._order = DrawOrder(rates, seed)
        self._epochs = [
            _Epochs(task, read, reader, seed, shuffle)
            for task, read in zip(self._tasks, reader.read(self._tasks, _reader_seed(seed, 0)), strict=True)
        ]
        sizes = [len(epochs) for epochs in self._epochs]
        self._settings = {**settings, "examples": _digest([rates, sizes])}
        self._place = (0, 0)
        self._ahead: Iterator[Draw] = iter(())
        self.go_to((0, 0))

    @property
    def tasks(self) -> Sequence[TaskExamples]:
        """The examples of each task, in the order of their names."""
        return [epochs.examples for epochs in self._epochs]

    @property
    def position(self) -> tuple[int, int]:
        """The number of a block of draws, and of the draws of it that were taken."""
        return self._place

    def go_to(self, position: tuple[int, int]) -> None:
        """Continue from a position."""
        self._place = position
        self._ahead = itertools.islice(self._block(position[0]), position[1], None)

    def save(self, filename: str | os.PathLike[str]) -> None:
        """Write the position to a file whose local or remote (gs://) path begins with `filename`."""
        write_position(filename, self._settings, draws=self._place)

    def restore(self, filename: str | os.PathLike[str]) -> None:
        """Go to a saved position.

        Raises:
          UserError: nothing was saved there, it is damaged, or it was saved with other settings or examples.
        """
        position = read_position(filename, self._settings, "indexed", mark="draws")
        place = position.take_list("draws", int)
        if len(place) != 2 or min(place) < 0:
            raise UserError(
                f"{position.place}: draws is {place}, and it must be two numbers from 0; {ADVICE}"
            )
        self.go_to((place[0], place[1]))

    def take(self, count: int) -> list[Draw]:
        """Return the next draws."""
        taken: list[Draw] = []
        while len(taken) < count:
            new = list(itertools.islice(self._ahead, count - len(taken)))
            taken += new
            block, offset = self._place
            self._place = (block, offset + len(new))
            if len(taken) < count:
                self.go_to((block + 1, 0))
        return taken

    def row(self, draw: Draw) -> tuple[TaskExamples, int]:
        """Return the examples of a draw's task, and the row that was drawn."""
        return self._epochs[draw[0]].row(draw[1])

    def example(self, draw: Draw) -> Example:
        """Return the example that was drawn."""
        examples, row = self.row(draw)
        return examples.example(row, draw)

    def _block(self, number: int) -> Iterator[Draw]:
        tasks, draws = self._order.block(number)
        return zip(tasks.tolist(), draws.tolist(), strict=True)


class _Epochs:
    """The order of one task's examples, epoch by epoch."""

    def __init__(self, task: RoutedTask, read: Read, reader: TaskReader, seed: int, shuffle: bool) -> None:
        self._task, self._reader, self._seed, self._shuffle = task, reader, seed, shuffle
        self._random = read.random
        self._key = np.array([random_key(seed, "targets", task.name)], np.uint64)
        self._draws_targets = reader.every_target and task.one_row_per_target() is not None
        self._kept: dict[int, _Epoch] = {}
        self.examples = read.examples
        self._size = self._keep(0, read.examples)
        if not self._size:
            raise UserError(
                f"task {task.name!r} has no example in split {reader.split!r}, or its preprocessors drop "
                "every one; mend it, or leave it out of the mixture"
            )

    def __len__(self) -> int:
        return self._size

    def row(self, draw: int) -> tuple[TaskExamples, int]:
        epoch, place = divmod(draw, self._size)
        if epoch not in self._kept:
            examples = self.examples
            if self._random and epoch:
                examples = self._reader.read([self._task], _reader_seed(self._seed, epoch))[0].examples
            self._keep(epoch, examples)
        kept = self._kept[epoch]
        # Preprocessors that drop examples at random may leave fewer in another epoch than in the first.
        row = int(kept.order[place % len(kept.order)])
        if kept.borders is not None:
            row, end = kept.borders[row : row + 2].tolist()
            row += int(uniform(self._key, np.array([draw]))[0] * (end - row))
        return kept.examples, row

    def _keep(self, epoch: int, examples: TaskExamples) -> int:
        """Make the order of an epoch, and return the number of examples."""
        size, borders = len(examples), None
        if self._draws_targets:
            assert examples.example_ids is not None
            begins = np.diff(examples.example_ids, prepend=-1) != 0
            borders = np.append(np.flatnonzero(begins), len(examples))
            size = len(borders) - 1
        order = np.arange(size)
        if self._shuffle:
            order = permutation(random_key(self._seed, "order", self._task.name, epoch), size)
        self._kept[epoch] = _Epoch(examples, order.astype(np.uint32), borders)
        if len(self._kept) > _EPOCHS_KEPT:
            del self._kept[next(iter(self._kept))]
        return size


@dataclasses.dataclass(frozen=True)
class _Epoch:
    """One pass over a task.

    Attributes:
      examples: the rows.
      order: the example that each draw takes.
      borders: first row of each example, and the number of rows; None where a row is an example.
    """

    examples: TaskExamples
    order: Int[np.ndarray, "examples"]
    borders: Int[np.ndarray, "borders"] | None


def _reader_seed(seed: int, epoch: int) -> int:
    return random_key(seed, "preprocessors", epoch) % _SEEDS


def _digest(contents: Any) -> str:
    return hashlib.sha256(repr(contents).encode()).hexdigest()[:16]
