"""An endless stream of batches of examples that are held in memory."""

import os
from collections.abc import Mapping, Sequence

import numpy as np
from clu.data.dataset_iterator import ArraySpec, DatasetIterator

from poly_jax.data.indexed_examples import IndexedExamples
from poly_jax.data.padded_rows import pad_rows
from poly_jax.data.stream import Batch
from poly_jax.data.task_examples import TaskExamples
from poly_jax.errors import UserError


class IndexedBatches(DatasetIterator):
    """An endless stream of batches with one example to a row, whose position can be saved and restored.

    The stream is a `clu.data.DatasetIterator`. Hosts share one sequence of examples: each takes its own rows
    of every batch. So a position is the same for any number of hosts.
    """

    def __init__(
        self,
        examples: IndexedExamples,
        rows: int,
        share: slice,
        sequence_length: Mapping[str, int],
        start_id: int,
        choices: bool,
    ) -> None:
        """Make a stream; `poly_jax.data.batches.train_batches` calls this.

        Args:
          examples: the examples at their start.
          rows: number of rows of a batch of all hosts.
          share: this host's rows.
          sequence_length: number of tokens of `inputs` and of `targets` in a row.
          start_id: the id that decoder inputs begin with.
          choices: whether to add the answer choices, which all examples must have.
        """
        self._examples, self._rows, self._share = examples, rows, share
        self._sequence_length, self._start_id = dict(sequence_length), start_id
        self._most_choices = most_choices(examples.tasks) if choices else 0

    def __next__(self) -> Batch:
        draws = self._examples.take(self._rows)[self._share]
        found = [self._examples.row(draw) for draw in draws]
        batch = pad_rows([each.example(row) for each, row in found], self._sequence_length, self._start_id)
        if self._most_choices:
            length = self._sequence_length["targets"]
            batch.update(choice_rows(found, self._most_choices, length))
        return batch

    @property
    def element_spec(self) -> dict[str, ArraySpec]:
        """Type and shape of each array of a batch."""
        place = self._examples.position
        batch = next(self)
        self._examples.go_to(place)
        return {name: ArraySpec(dtype=array.dtype, shape=array.shape) for name, array in batch.items()}

    def reset(self) -> None:
        """Go back to the first batch."""
        self._examples.go_to((0, 0))

    def close(self) -> None:
        """Do nothing: the stream has no threads."""

    def save(self, filename: str | os.PathLike[str]) -> None:
        """Write the position to a file whose local or remote (gs://) path begins with `filename`."""
        self._examples.save(filename)

    def restore(self, filename: str | os.PathLike[str]) -> None:
        """Go to a saved position; see `IndexedExamples.restore`."""
        self._examples.restore(filename)


def most_choices(tasks: Sequence[TaskExamples]) -> int:
    """Return the largest number of answer choices of an example.

    Raises:
      UserError: a task has no answer choices.
    """
    most = 0
    for examples in tasks:
        if examples.choices is None:
            raise UserError(
                f"task {examples.name!r} has no answer choices, which the loss needs; use TokenLoss"
            )
        most = max(most, examples.choices.tokens.shape[1])
    return most


def choice_rows(found: Sequence[tuple[TaskExamples, int]], most: int, length: int) -> Batch:
    """Return what answer choices add to a batch; see `RoutedEncDecFeatureConverter`."""
    choices = np.zeros((len(found), most, length), np.int32)
    labels, ids = np.zeros((2, len(found)), np.int32)
    for place, (examples, row) in enumerate(found):
        assert examples.choices is not None
        assert examples.example_ids is not None
        tokens = examples.choices.tokens[row]
        choices[place, : len(tokens), : tokens.shape[1]] = tokens
        labels[place], ids[place] = examples.choices.labels[row], examples.example_ids[row]
    return {"choices": choices, "labels": labels, "example_ids": ids}
