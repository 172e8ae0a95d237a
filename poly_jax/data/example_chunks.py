"""Examples as TensorFlow hands them over, some hundreds at a time, and how they become the rows of tasks."""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Bool, Int

from poly_jax.data.example_rows import Choices, ExampleRows, Ragged, ReadTasks
from poly_jax.data.feature_converter import CHOICE_FEATURES

TEXTS = ("inputs", "targets")
_BITS_16 = 2**16


class ExampleChunk:
    """Rows as TensorFlow hands them over, without their padding.

    Args:
      arrays: `place`, `inputs_length` and `targets_length` [rows]; the tokens `inputs` and `targets`, [rows,
        longest] with padding, or one row after another; and the `CHOICE_FEATURES` that there are.
    """

    def __init__(self, arrays: Mapping[str, np.ndarray]) -> None:
        self.places: Int[np.ndarray, "rows"] = arrays["place"]
        self.lengths = {name: arrays[f"{name}_length"].astype(np.int64) for name in TEXTS}
        self.tokens = {name: _compact(_unpadded(arrays[name], self.lengths[name])) for name in TEXTS}
        choices, label, example_id = CHOICE_FEATURES
        self.example_ids: Int[np.ndarray, "rows"] | None = arrays.get(example_id)
        self.labels = np.zeros(len(self), np.int32)
        self.choice_counts = np.zeros(len(self), np.int64)
        self.choice_lengths = np.zeros(0, np.int64)
        self.choice_tokens = np.zeros(0, np.uint16)
        self.has_choices = arrays.keys() >= set(CHOICE_FEATURES)
        if self.has_choices:
            padded = arrays[choices]
            self.labels = arrays[label].astype(np.int32)
            self.choice_counts[:] = padded.shape[1]
            texts = padded.reshape(-1, padded.shape[2])
            self.choice_lengths = ((texts != 0) * np.arange(1, texts.shape[1] + 1)).max(axis=1, initial=0)
            self.choice_tokens = _compact(_unpadded(texts, self.choice_lengths))

    def __len__(self) -> int:
        return len(self.places)

    @property
    def bytes(self) -> int:
        """Memory that the arrays take, in bytes."""
        arrays = [*self.tokens.values(), *self.lengths.values()]
        return sum(each.nbytes for each in arrays) + self.choice_tokens.nbytes + self.choice_lengths.nbytes


def joined(
    chunks: Sequence[ExampleChunk],
    tasks: Int[np.ndarray, "rows"],
    ids: Int[np.ndarray, "tasks"],
    random: Bool[np.ndarray, "tasks"],
) -> ReadTasks:
    """Join the rows of all chunks.

    Args:
      chunks: the chunks. Rows of one task are adjacent.
      tasks: index of each row's task.
      ids: the id of each task.
      random: whether a task's preprocessors may make different rows when they run again.
    """
    sizes = np.bincount(tasks, minlength=len(ids))
    firsts = np.flatnonzero(np.diff(tasks, prepend=-1))
    begins = np.zeros(len(ids), np.int64)
    begins[tasks[firsts]] = firsts
    texts = {
        name: Ragged.of([chunk.tokens[name] for chunk in chunks], [chunk.lengths[name] for chunk in chunks])
        for name in TEXTS
    }
    example_ids = (np.arange(len(tasks)) - begins[tasks]).astype(np.int32)
    with_choices, end = np.zeros(len(ids), bool), 0
    for chunk in chunks:
        begin, end = end, end + len(chunk)
        if chunk.example_ids is not None:
            example_ids[begin:end] = chunk.example_ids
        if chunk.has_choices:
            with_choices[tasks[begin:end]] = True
    choices = _joined_choices(chunks) if with_choices.any() else None
    rows = ExampleRows(texts["inputs"], texts["targets"], ids[tasks], example_ids, choices)
    return ReadTasks(rows, begins, sizes, random, with_choices)


def _joined_choices(chunks: Sequence[ExampleChunk]) -> Choices:
    return Choices(
        Ragged.of([chunk.choice_tokens for chunk in chunks], [chunk.choice_lengths for chunk in chunks]),
        np.cumsum(np.concatenate([np.zeros(1, np.int64), *[chunk.choice_counts for chunk in chunks]])),
        np.concatenate([chunk.labels for chunk in chunks]),
    )


def _unpadded(tokens: Int[np.ndarray, "..."], lengths: Int[np.ndarray, "rows"]) -> Int[np.ndarray, "n"]:
    if tokens.ndim == 1:
        return tokens
    return tokens[np.arange(tokens.shape[1]) < lengths[:, None]]


def _compact(tokens: Int[np.ndarray, "*n"]) -> Int[np.ndarray, "*n"]:
    small = not tokens.size or (tokens.min() >= 0 and tokens.max() < _BITS_16)
    return tokens.astype(np.uint16 if small else np.int32)
