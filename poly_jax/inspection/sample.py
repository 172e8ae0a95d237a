"""A sample of the examples that a run trains on, in the order in which training draws them."""

import dataclasses
import itertools
from collections.abc import Iterator, Sequence
from typing import Any, cast

import numpy as np
from jaxtyping import Int

from poly_jax.data.batches import train_batches
from poly_jax.data.example_sequences import EXAMPLES_TAKEN, unpadded
from poly_jax.data.packed_stream import PackedStream
from poly_jax.data.packing import Example, Packing
from poly_jax.data.stream import Batch
from poly_jax.data.task_table import TaskTable
from poly_jax.experiment import Data

_BATCH = 64
# More than the examples that wait to be packed, so that rows look as in the middle of training.
_EXAMPLES = 2048
# Longer examples are counted as if they had this length.
_LONGEST = 1 << 14


@dataclasses.dataclass(frozen=True)
class Sample:
    """Examples as training draws them.

    Attributes:
      batches: batches of examples without packing, as the model gets them.
      inputs_lengths: number of tokens of each input before it is cut.
      targets_lengths: number of tokens of each target before it is cut.
    """

    batches: Sequence[Batch]
    inputs_lengths: Int[np.ndarray, "examples"]
    targets_lengths: Int[np.ndarray, "examples"]

    @property
    def examples(self) -> list[Example]:
        """The examples without padding, in order."""
        return [example for batch in self.batches for example in unpadded(batch)]


def read_sample(name: str, table: TaskTable, data: Data, seed: int) -> Sample:
    """Read the first examples of a run's stream on one host.

    Args:
      name: name of a registered mixture or task.
      table: table of the task ids.
      data: split, lengths, and the way of reading.
      seed: seed of the run.

    Raises:
      UserError: the mixture cannot be read.
    """

    def read(lengths: dict[str, int]) -> list[Batch]:
        stream = train_batches(
            name,
            table,
            sequence_length=lengths,
            batch_size=_BATCH,
            seed=seed,
            split=data.split,
            reading=data.reading,
        )
        try:
            return list(itertools.islice(stream, _EXAMPLES // _BATCH))
        finally:
            stream.close()

    whole: list[tuple[int, int]] = []
    for batch in read({feature: max(_LONGEST, length) for feature, length in data.sequence_length.items()}):
        whole += [(len(example.inputs), len(example.targets)) for example in unpadded(batch)]
    inputs, targets = np.array(whole).T
    return Sample(read(data.sequence_length), inputs, targets)


def packed_rows(sample: Sample, data: Data, packing: Packing) -> Iterator[Batch]:
    """Yield the packed rows of a sample, one to a batch; without packing, each example is a row.

    The rows are the same as in training. They end when the examples of the sample do, before the last ones
    are packed, because training would choose among more.
    """
    if packing == "none":
        for batch in sample.batches:
            for row in range(len(batch["task_ids"])):
                yield {name: array[row : row + 1] for name, array in batch.items()}
        return
    room = (data.inputs_length, data.targets_length)
    examples = cast(Any, _Recorded(sample.examples))
    yield from PackedStream(examples, 1, room, data.max_segments, packing)


class _Recorded:
    """A sequence of examples that ends, for a packed stream whose position nobody saves."""

    def __init__(self, examples: Sequence[Example]) -> None:
        self._examples = iter(examples)

    def take(self) -> list[Example]:
        if not (taken := list(itertools.islice(self._examples, EXAMPLES_TAKEN))):
            raise StopIteration
        return taken

    def close(self) -> None:
        pass
