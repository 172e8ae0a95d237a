"""Examples as tensors, whose texts are in memory once."""

import functools
import itertools
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from jaxtyping import Int

from poly_jax.data.drawn_reference import reference_columns
from poly_jax.data.quiet import tf
from poly_jax.tasks.from_files.examples import Example

Arrays = dict[str, tf.Tensor]

# Columns with a text for each reference or choice, filled up with empty ones to the largest number.
_LISTS = ("references", "choices")


class ExampleTable:
    """The examples of a task's files.

    Each has the scalar text `inputs` and `reference_columns`. Where examples have choices, each also has
    `choices` (texts, filled up with empty ones to the largest number), and the numbers `label` and
    `example_id` (int32).

    Args:
      examples: the examples, which are read once.
      block: number of examples that are Python objects before they become tensors. A tensor of all of them
        would be their second copy while it is made.
    """

    def __init__(self, examples: Iterable[Example], block: int = 1 << 15) -> None:
        self._block, self._size = block, 0
        blocks = []
        for part in _parts(iter(examples), block):
            blocks.append(_arrays(part, self._size))
            self._size += len(part)
        widths = {
            name: max(arrays[name].shape[1] for arrays in blocks)
            for name in _LISTS
            if blocks and name in blocks[0]
        }
        self._blocks = [_widened(arrays, widths) for arrays in blocks]

    def __len__(self) -> int:
        return self._size

    def dataset(self, places: Int[np.ndarray, "chosen"] | None = None) -> tf.data.Dataset:
        """Return the examples at some places, in this order; None for all in their own order."""
        if places is None and len(self._blocks) == 1:
            return tf.data.Dataset.from_tensor_slices(self._blocks[0])

        @tf.autograph.experimental.do_not_convert
        def example(place: tf.Tensor) -> Arrays:
            branches = [functools.partial(_row, arrays, place % self._block) for arrays in self._blocks]
            return branches[0]() if len(branches) == 1 else tf.switch_case(place // self._block, branches)

        every = np.arange(len(self)) if places is None else places
        return tf.data.Dataset.from_tensor_slices(every.astype(np.int32)).map(example)


def _parts(examples: Iterator[Example], size: int) -> Iterator[list[Example]]:
    while part := list(itertools.islice(examples, size)):
        yield part


def _arrays(examples: Sequence[Example], first: int) -> Arrays:
    references = reference_columns([example.references for example in examples])
    arrays = {
        "inputs": tf.constant([example.input for example in examples], tf.string),
        **{name: tf.constant(column) for name, column in references.items()},
    }
    width = max(len(example.choices) for example in examples)
    if not width:
        return arrays
    choices = [[*example.choices, *[""] * (width - len(example.choices))] for example in examples]
    return {
        **arrays,
        "choices": tf.constant(choices, tf.string),
        "label": tf.constant([example.label for example in examples], tf.int32),
        "example_id": tf.range(first, first + len(examples), dtype=tf.int32),
    }


def _widened(arrays: Arrays, widths: dict[str, int]) -> Arrays:
    """Return a block whose lists of texts have a number of texts that is the same for all blocks."""
    added = {name: width - arrays[name].shape[1] for name, width in widths.items()}
    return arrays | {name: tf.pad(arrays[name], [[0, 0], [0, more]]) for name, more in added.items() if more}


def _row(arrays: Arrays, place: tf.Tensor) -> Arrays:
    return {name: array[place] for name, array in arrays.items()}
