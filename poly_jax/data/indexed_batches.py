"""An endless stream of batches of examples that are held in memory."""

import os
from collections.abc import Mapping, Sequence

import numpy as np
from clu.data.dataset_iterator import ArraySpec, DatasetIterator

from poly_jax.data.example_rows import ReadTasks
from poly_jax.data.indexed_examples import Found, IndexedExamples
from poly_jax.data.padded_rows import padded_choices, padded_rows
from poly_jax.data.stream import Batch
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
        self._most_choices = most_choices(examples.tasks, examples.names) if choices else 0

    def __next__(self) -> Batch:
        found = self._examples.find(self._examples.take(self._rows)[self._share])
        parts = [self._batch(each) for each in found]
        if len(parts) == 1:
            return parts[0]
        order = np.argsort(np.concatenate([each.places for each in found]))
        return {name: np.concatenate([part[name] for part in parts])[order] for name in parts[0]}

    def _batch(self, found: Found) -> Batch:
        batch = padded_rows(found.rows, found.numbers, self._sequence_length, self._start_id)
        if self._most_choices:
            length = self._sequence_length["targets"]
            batch.update(padded_choices(found.rows, found.numbers, self._most_choices, length))
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


def most_choices(read: ReadTasks, names: Sequence[str]) -> int:
    """Return the largest number of answer choices of an example.

    Args:
      read: the examples of tasks.
      names: the names of the tasks.

    Raises:
      UserError: a task has no answer choices.
    """
    for name, has_choices in zip(names, read.choices, strict=True):
        if not has_choices:
            raise UserError(f"task {name!r} has no answer choices, which the loss needs; use TokenLoss")
    return read.rows.choices.most if read.rows.choices else 0
