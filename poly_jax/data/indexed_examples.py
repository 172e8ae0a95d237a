"""The endless sequence of a mixture's examples, held in memory, where any place can be computed."""

import dataclasses
import hashlib
import os
from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Int

from poly_jax.data.draw_order import DrawOrder
from poly_jax.data.epoch_orders import EpochOrders, order
from poly_jax.data.example_rows import ExampleRows, PerDraw, ReadTasks, Rows
from poly_jax.data.keyed_random import random_key
from poly_jax.data.numbered_examples import NumberedExamples
from poly_jax.data.packing import Example
from poly_jax.data.position import ADVICE, read_position, write_position
from poly_jax.data.routed import RoutedTask
from poly_jax.data.task_reader import TaskReader
from poly_jax.errors import UserError

# Epochs of a task with random preprocessors that are kept: the draws of a batch may belong to two.
_EPOCHS_KEPT = 2
# seqio takes seeds of 32 bits, and adds small numbers to them.
_SEEDS = 2**31 - 2**20


@dataclasses.dataclass(frozen=True)
class Draws:
    """Some draws, in their order.

    Attributes:
      tasks: index of the task of each, in the order of their names.
      numbers: number of earlier draws of the same task.
    """

    tasks: PerDraw
    numbers: PerDraw

    def __len__(self) -> int:
        return len(self.tasks)

    def __getitem__(self, part: Any) -> "Draws":
        return Draws(self.tasks[part], self.numbers[part])


@dataclasses.dataclass(frozen=True)
class Found:
    """Draws whose examples are in memory together.

    Attributes:
      rows: the examples.
      numbers: the numbers of the rows that were drawn.
      places: the places of these draws among those that were asked for.
    """

    rows: ExampleRows
    numbers: Rows
    places: Rows


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
        names = [task.name for task in self._tasks]
        rates = {task.name: float(tasks[task]) for task in self._tasks}
        self._order = DrawOrder(rates, seed)
        self._read = reader.read(self._tasks, _reader_seed(seed, 0))
        several = [reader.every_target and task.one_row_per_target() is not None for task in self._tasks]
        self._several = np.array(several, bool)
        self._examples = NumberedExamples(self._read, names, self._several, seed)
        sizes = self._examples.sizes
        for name in np.array(names)[sizes == 0]:
            raise UserError(
                f"task {str(name)!r} has no example in split {reader.split!r}, or its preprocessors drop "
                "every one; mend it, or leave it out of the mixture"
            )
        self._orders = EpochOrders(names, sizes, seed) if shuffle else None
        self._epochs: dict[tuple[int, int], _RandomEpoch] = {}
        self._settings = {**settings, "examples": _digest([rates, sizes.tolist()])}
        self._place = (0, 0)
        self._block = self._order.block(0)

    @property
    def tasks(self) -> ReadTasks:
        """The rows of each task in the first epoch, in the order of the tasks' names."""
        return self._read

    @property
    def names(self) -> list[str]:
        """The names of the tasks, in order."""
        return [task.name for task in self._tasks]

    @property
    def position(self) -> tuple[int, int]:
        """The number of a block of draws, and of the draws of it that were taken."""
        return self._place

    def go_to(self, position: tuple[int, int]) -> None:
        """Continue from a position."""
        if position[0] != self._place[0]:
            self._block = self._order.block(position[0])
        self._place = position

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

    def take(self, count: int) -> Draws:
        """Return the next draws."""
        taken: list[tuple[np.ndarray, np.ndarray]] = []
        missing = count
        while True:
            (block, offset), (tasks, numbers) = self._place, self._block
            part = slice(offset, offset + missing)
            taken.append((tasks[part], numbers[part]))
            missing -= len(taken[-1][0])
            self._place = (block, offset + len(taken[-1][0]))
            if not missing:
                break
            self.go_to((block + 1, 0))
        return Draws(*map(np.concatenate, zip(*taken, strict=True)))

    def find(self, draws: Draws) -> list[Found]:
        """Return the rows of draws: those of the first reading together, and others draw by draw."""
        epochs, places = np.divmod(draws.numbers, self._examples.sizes[draws.tasks])
        again = self._read.random[draws.tasks] & (epochs > 0)
        found = [
            self._random_epoch(int(draws.tasks[place]), int(epochs[place])).find(
                int(places[place]), draws.numbers[place : place + 1], place
            )
            for place in np.flatnonzero(again).tolist()
        ]
        first = np.flatnonzero(~again)
        if not len(first):
            return found
        tasks, examples = draws.tasks[first], places[first]
        if self._orders is not None:
            examples = self._orders.examples(tasks, epochs[first], examples)
        numbers = self._examples.find(tasks, examples, draws.numbers[first])
        return [Found(self._examples.rows, numbers, first), *found]

    def examples(self, draws: Draws) -> list[Example]:
        """Return the examples that were drawn."""
        made: dict[int, Example] = {}
        for found in self.find(draws):
            made.update(zip(found.places.tolist(), found.rows.examples(found.numbers), strict=True))
        where = zip(draws.tasks.tolist(), draws.numbers.tolist(), strict=True)
        return [made[place]._replace(draw=draw) for place, draw in enumerate(where)]

    def _random_epoch(self, task: int, epoch: int) -> "_RandomEpoch":
        """Read a task again whose preprocessors are random."""
        if (task, epoch) not in self._epochs:
            self._epochs[task, epoch] = self._read_again(task, epoch)
            of_task = [each for each in self._epochs if each[0] == task]
            if len(of_task) > _EPOCHS_KEPT:
                del self._epochs[of_task[0]]
        return self._epochs[task, epoch]

    def _read_again(self, task: int, epoch: int) -> "_RandomEpoch":
        name = self._tasks[task].name
        read = self._reader.read([self._tasks[task]], _reader_seed(self._seed, epoch))
        examples = NumberedExamples(read, [name], self._several[task : task + 1], self._seed)
        size = int(examples.sizes[0])
        if not size:
            raise UserError(
                f"the preprocessors of task {name!r} drop every example of split {self._reader.split!r} in "
                f"epoch {epoch + 1}; make them keep some"
            )
        return _RandomEpoch(
            examples, order(self._seed, name, epoch, size) if self._shuffle else np.arange(size)
        )


@dataclasses.dataclass(frozen=True)
class _RandomEpoch:
    """A pass over a task whose preprocessors are random.

    Attributes:
      examples: the examples of this task alone.
      order: the example that each draw takes.
    """

    examples: NumberedExamples
    order: Int[np.ndarray, "examples"]

    def find(self, place: int, number: Int[np.ndarray, "1"], among: int) -> Found:
        """Find the draw `number`, at a place of the epoch, which is the one at `among` that was asked for."""
        # Preprocessors that drop examples at random may leave fewer in another epoch than in the first.
        example = self.order[place % len(self.order)]
        rows = self.examples.find(np.zeros(1, np.int64), np.array([example], np.int64), number)
        return Found(self.examples.rows, rows, np.array([among]))


def _reader_seed(seed: int, epoch: int) -> int:
    return random_key(seed, "preprocessors", epoch) % _SEEDS


def _digest(contents: Any) -> str:
    return hashlib.sha256(repr(contents).encode()).hexdigest()[:16]
