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

# Examples that are Python objects before they become tensors.
_BLOCK = 1 << 15
# Columns with a text for each reference or choice, filled up with empty ones to the largest number.
_LISTS = ("references", "choices")


class ExampleTable:
    """The examples of a task's files.

    Each has the scalar text `inputs` and `reference_columns`. Where examples have choices, each also has
    `choices` (texts, filled up with empty ones to the largest number), and the numbers `label` and
    `example_id` (int32).

    Args:
      examples: the examples, which are read once. They become tensors in blocks: one tensor would be a second
        copy of them all while it is made.
    """

    def __init__(self, examples: Iterable[Example]) -> None:
        sizes, blocks = [], []
        for block in _blocks(iter(examples)):
            blocks.append(_arrays(block, sum(sizes)))
            sizes.append(len(block))
        self._size = sum(sizes)
        widths = {
            name: max(block[name].shape[1] for block in blocks)
            for name in _LISTS
            if blocks and name in blocks[0]
        }
        self._blocks = [_widened(block, widths) for block in blocks]

    def __len__(self) -> int:
        return self._size

    def dataset(self, places: Int[np.ndarray, "chosen"] | None = None) -> tf.data.Dataset:
        """Return the examples at some places, in this order; None for all in their own order."""
        if places is None and len(self._blocks) == 1:
            return tf.data.Dataset.from_tensor_slices(self._blocks[0])

        @tf.autograph.experimental.do_not_convert
        def example(place: tf.Tensor) -> Arrays:
            branches = [functools.partial(_row, block, place % _BLOCK) for block in self._blocks]
            return branches[0]() if len(branches) == 1 else tf.switch_case(place // _BLOCK, branches)

        every = np.arange(len(self)) if places is None else places
        return tf.data.Dataset.from_tensor_slices(every.astype(np.int32)).map(example)


def _blocks(examples: Iterator[Example]) -> Iterator[list[Example]]:
    while block := list(itertools.islice(examples, _BLOCK)):
        yield block


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


def _widened(block: Arrays, widths: dict[str, int]) -> Arrays:
    """Return a block whose lists of texts have a number of texts that is the same for all blocks."""
    added = {name: width - block[name].shape[1] for name, width in widths.items()}
    return block | {name: tf.pad(block[name], [[0, 0], [0, more]]) for name, more in added.items() if more}


def _row(block: Arrays, place: tf.Tensor) -> Arrays:
    return {name: array[place] for name, array in block.items()}
