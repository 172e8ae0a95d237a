"""An endless stream of batches whose position can be saved and restored."""

import atexit
import os
import weakref
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from clu.data.dataset_iterator import TfDatasetIterator

from poly_jax.data.position import ADVICE, read_position, write_position
from poly_jax.data.quiet import held_stderr, tf
from poly_jax.data.waiting import waited_for
from poly_jax.errors import UserError

Batch = dict[str, np.ndarray]

_SHOWN = 200
# A first batch may take long where a shuffle buffer is filled from a slow disk, which is not an error.
_SECONDS_BEFORE_SEARCH = 20

_open_streams: "weakref.WeakSet[BatchStream]" = weakref.WeakSet()


class BatchStream(TfDatasetIterator):
    """An endless stream of batches whose position can be saved and restored.

    The stream is a `clu.data.DatasetIterator`. A restored stream continues with exactly the batch that would
    have come next, in this process or another. Where TensorFlow can write the iterator's state, this state is
    saved; most of it is shuffle buffers. Otherwise the stream is drawn again up to the position.
    """

    def __init__(
        self,
        make_dataset: Callable[[], tf.data.Dataset],
        stream: Mapping[str, Any],
        empty_task: Callable[[bool], str | None],
        explain: Callable[[Exception], UserError],
    ) -> None:
        """Make a stream; `poly_jax.data.batches.train_batches` calls this.

        Args:
          make_dataset: function that makes the endless dataset of batches, the same at each call.
          stream: the settings that must be the same to restore a position.
          empty_task: function that names a task of which this shard has no example, or, given True, a task
            whose preprocessors drop every example; None where there is no such task.
          explain: function that names the task whose code failed, given TensorFlow's error.
        """
        super().__init__(make_dataset(), checkpoint=True)
        self._make_dataset = make_dataset
        self._stream = dict(stream)
        self._empty_task = empty_task
        self._explain = explain
        self._drawn = 0
        self._searched = False
        _open_streams.add(self)

    def __next__(self) -> Batch:
        try:
            batch = waited_for(super().__next__, _SECONDS_BEFORE_SEARCH, self._refuse_empty_task)
        except StopIteration:
            task = self._empty_task(False) or self._stream["mixture"]
            raise UserError(
                f"task {task!r} has no example in split {self._stream['split']!r} "
                f"(shard {self._stream['shard_id']} of {self._stream['num_shards']}); leave it out of "
                f"{self._stream['mixture']!r}"
            ) from None
        except tf.errors.OpError as error:
            raise self._explain(error) from error
        self._drawn += 1
        return batch

    def _refuse_empty_task(self) -> None:
        """Raise a UserError for a task whose preprocessors drop every example: it is read without end."""
        if self._searched:
            return
        self._searched = True
        if (task := self._empty_task(True)) is not None:
            raise UserError(
                f"the preprocessors of task {task!r} drop every example of split {self._stream['split']!r}; "
                f"mend them, or leave the task out of {self._stream['mixture']!r}"
            )

    def reset(self) -> None:
        """Go back to the first batch."""
        # A new dataset is made, because TensorFlow shuffles each iteration of a dataset differently.
        super().__init__(self._make_dataset(), checkpoint=True)
        self._drawn = 0

    def close(self) -> None:
        """End the stream's threads and its batches. Streams that are still open at exit are closed."""
        self.iterator = self._ckpt = None

    def save(self, filename: str | os.PathLike[str]) -> None:
        """Write the position to files whose local or remote (gs://) paths begin with `filename`."""
        # TensorFlow logs the errors that it also raises.
        with held_stderr():
            try:
                super().save(filename)
                held = True
            except (tf.errors.UnimplementedError, tf.errors.FailedPreconditionError):
                # A user's task has a state of its own, such as a Python generator's or a function's.
                held = False
        write_position(filename, self._stream, batches=self._drawn, iterator=held)

    def restore(self, filename: str | os.PathLike[str]) -> None:
        """Go to a saved position.

        Raises:
          UserError: nothing was saved there, it is damaged, or a stream with other settings saved it.
        """
        position = read_position(filename, self._stream, "streamed", mark="iterator")
        drawn = position.take("batches", int, at_least=0)
        if position.take("iterator", bool):
            self._restore_iterator(filename)
            self._drawn = drawn
        else:
            if self._drawn:
                self.reset()
            for _ in range(drawn):
                next(self)

    def _restore_iterator(self, filename: str | os.PathLike[str]) -> None:
        try:
            with held_stderr():
                super().restore(filename)
        # TensorFlow raises errors of many types while it reads, and an AssertionError for anything missing.
        except Exception as e:
            reason = " ".join(str(e).split())[:_SHOWN] or type(e).__name__
            raise UserError(
                f"the position of a data stream at {os.fspath(filename)!r} is damaged ({reason}); {ADVICE}"
            ) from None


@atexit.register
def _close_streams() -> None:
    """Close all open streams, because a stream fed by a Python generator can hang the process at exit."""
    for stream in list(_open_streams):
        stream.close()
