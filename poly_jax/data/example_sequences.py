"""Endless sequences of examples, to be packed into rows."""

import os
from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np
from jaxtyping import Int

from poly_jax.data.indexed_examples import Draws, IndexedExamples
from poly_jax.data.packing import Example
from poly_jax.data.stream import Batch, BatchStream

EXAMPLES_TAKEN = 256
"""Number of examples that are taken at a time to be packed, on which the rows depend."""


class Examples(Protocol):
    """An endless sequence of examples, whose position can be saved and restored."""

    def take(self) -> list[Example]:
        """Return the next examples, any number of them."""
        ...

    def stored(self, examples: Sequence[Example]) -> dict[str, Int[np.ndarray, "..."]]:
        """Return arrays from which `of_stored` makes the same examples."""
        ...

    def of_stored(self, arrays: Mapping[str, Int[np.ndarray, "..."]]) -> list[Example]:
        """Return the examples of arrays that `stored` made."""
        ...

    def save(self, filename: str | os.PathLike[str]) -> None:
        """Write the position to files whose paths begin with `filename`."""
        ...

    def restore(self, filename: str | os.PathLike[str]) -> None:
        """Go to a saved position."""
        ...

    def close(self) -> None:
        """End the threads of the sequence."""
        ...


class IndexedSequence:
    """Examples that are held in memory. Those that wait are stored as the numbers of their draws."""

    def __init__(self, examples: IndexedExamples) -> None:
        """Makes the sequence of the examples at their start."""
        self._examples = examples
        self.save, self.restore = examples.save, examples.restore

    def take(self) -> list[Example]:
        """Return the next examples."""
        return self._examples.examples(self._examples.take(EXAMPLES_TAKEN))

    def stored(self, examples: Sequence[Example]) -> dict[str, Int[np.ndarray, "..."]]:
        """Return the draws of examples."""
        draws = np.array([example.draw for example in examples], np.int64).reshape(-1, 2)
        return {"tasks": draws[:, 0].astype(np.int32), "draws": draws[:, 1].copy()}

    def of_stored(self, arrays: Mapping[str, Int[np.ndarray, "..."]]) -> list[Example]:
        """Return the examples that these draws stand for."""
        return self._examples.examples(
            Draws(arrays["tasks"].astype(np.int64), arrays["draws"].astype(np.int64))
        )

    def close(self) -> None:
        """Do nothing: no thread reads ahead."""


class StreamedSequence:
    """The examples of an unpacked stream of batches. Those that wait are stored as their tokens."""

    def __init__(self, batches: BatchStream) -> None:
        """Makes the sequence of a stream at its start, with any number of examples in a batch."""
        self._batches = batches
        self.save, self.restore, self.close = batches.save, batches.restore, batches.close

    def take(self) -> list[Example]:
        """Return the examples of the next batch."""
        return unpadded(next(self._batches))

    def stored(self, examples: Sequence[Example]) -> dict[str, Int[np.ndarray, "..."]]:
        """Return the tokens of examples, one example after another."""
        return {
            "inputs": _joined([example.inputs for example in examples]),
            "targets": _joined([example.targets for example in examples]),
            "inputs_lengths": np.asarray([len(example.inputs) for example in examples], np.int32),
            "targets_lengths": np.asarray([len(example.targets) for example in examples], np.int32),
            "task_ids": np.asarray([example.task for example in examples], np.int32),
        }

    def of_stored(self, arrays: Mapping[str, Int[np.ndarray, "..."]]) -> list[Example]:
        """Return the examples that these tokens make up."""
        if not len(arrays["task_ids"]):
            return []
        inputs = np.split(arrays["inputs"], np.cumsum(arrays["inputs_lengths"])[:-1])
        targets = np.split(arrays["targets"], np.cumsum(arrays["targets_lengths"])[:-1])
        return list(map(Example, inputs, targets, arrays["task_ids"].tolist()))


def unpadded(batch: Batch) -> list[Example]:
    """Return the examples of a batch with one example to a row."""
    inputs, targets = batch["encoder_input_tokens"], batch["decoder_target_tokens"]
    ends = zip(_lengths(inputs), _lengths(targets), strict=True)
    return [
        Example(inputs[row, :end].copy(), targets[row, :target_end].copy(), int(batch["task_ids"][row]))
        for row, (end, target_end) in enumerate(ends)
    ]


def _lengths(tokens: Int[np.ndarray, "batch length"]) -> list[int]:
    """Number of tokens of each row up to the last one that is not padding."""
    return ((tokens != 0) * np.arange(1, tokens.shape[1] + 1)).max(axis=1).tolist()


def _joined(arrays: list[Int[np.ndarray, "length"]]) -> Int[np.ndarray, "total"]:
    return np.concatenate(arrays) if arrays else np.zeros(0, np.int32)
