"""Examples as TensorFlow hands them over, some hundreds at a time, and the tasks that they belong to."""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from jaxtyping import Int

from poly_jax.data.feature_converter import CHOICE_FEATURES
from poly_jax.data.routed import RoutedTask
from poly_jax.data.task_examples import Choices, Ragged, TaskExamples

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
        self.extra = {name: arrays[name] for name in CHOICE_FEATURES if name in arrays}

    @property
    def bytes(self) -> int:
        """Memory that the arrays take, in bytes."""
        arrays = [*self.tokens.values(), *self.extra.values(), *self.lengths.values()]
        return sum(array.nbytes for array in arrays)


def _unpadded(tokens: Int[np.ndarray, "..."], lengths: Int[np.ndarray, "rows"]) -> Int[np.ndarray, "n"]:
    if tokens.ndim == 1:
        return tokens
    return tokens[np.arange(tokens.shape[1]) < lengths[:, None]]


def _compact(tokens: Int[np.ndarray, "*n"]) -> Int[np.ndarray, "*n"]:
    small = not tokens.size or (tokens.min() >= 0 and tokens.max() < _BITS_16)
    return tokens.astype(np.uint16 if small else np.int32)


def by_task(chunks: Sequence[ExampleChunk], tasks: Sequence[RoutedTask]) -> Iterator[TaskExamples]:
    """Divide the rows among the tasks that they come from."""
    places = np.concatenate([np.zeros(0, np.int64), *(chunk.places for chunk in chunks)])
    borders = np.searchsorted(places, np.arange(len(tasks) + 1))
    texts = {
        name: Ragged.of([chunk.tokens[name] for chunk in chunks], [chunk.lengths[name] for chunk in chunks])
        for name in TEXTS
    }
    extra: dict[str, Int[np.ndarray, "rows ..."]] = {}
    if chunks:
        extra = {name: _stacked([chunk.extra[name] for chunk in chunks]) for name in chunks[0].extra}
    for place, task in enumerate(tasks):
        rows = slice(borders[place], borders[place + 1])
        choices = None
        if extra.keys() >= set(CHOICE_FEATURES):
            choices = Choices(extra["choices"][rows], extra["label"][rows])
        yield TaskExamples(
            task.name,
            task.task_id,
            texts["inputs"].slice(rows),
            texts["targets"].slice(rows),
            choices,
            extra["example_id"][rows] if "example_id" in extra else None,
        )


def _stacked(arrays: Sequence[Int[np.ndarray, "_ ..."]]) -> Int[np.ndarray, "rows ..."]:
    """Join arrays along the first axis, and fill up the others with 0 to the largest."""
    largest = np.max([array.shape[1:] for array in arrays], axis=0)

    def filled(array: Int[np.ndarray, "_ ..."]) -> Int[np.ndarray, "_ ..."]:
        missing: list[int] = np.subtract(largest, array.shape[1:]).tolist()
        return np.pad(array, [(0, 0), *((0, count) for count in missing)])

    return np.concatenate([filled(array) for array in arrays])
