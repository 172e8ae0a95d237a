"""Packs several examples into each row of a batch, so that little of what is computed is padding."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Int

Fit = Literal["first-fit", "best-fit"]
"""The ways to choose the examples of a row; see `Waiting.take_row`."""

Packing = Literal["none", Fit]
"""The same, where "none" pads one example to a row."""

Room = tuple[int, int]
"""Number of tokens of the inputs and of the targets of a row."""


class Example(NamedTuple):
    """An example without padding.

    Attributes:
      inputs: tokens of the input.
      targets: tokens of the target.
      task: the task's id.
      draw: place of the draw: the index of its task and the number of earlier draws of the task; None where
        examples come from a stream that cannot go back to them.
    """

    inputs: Int[np.ndarray, "inputs"]
    targets: Int[np.ndarray, "targets"]
    task: int
    draw: tuple[int, int] | None = None


class Waiting:
    """Examples that wait to be packed, the oldest first."""

    def __init__(self, examples: Iterable[Example] = ()) -> None:
        self._examples: dict[int, Example] = {}
        self._added = 0
        # The waiting examples by the length of their inputs, the oldest first; and these lengths as the bits
        # of a number, in which the longest that fits is found at once.
        self._by_length: dict[int, dict[int, Example]] = {}
        self._lengths = 0
        self.add(examples)

    def __len__(self) -> int:
        return len(self._examples)

    def __iter__(self) -> Iterator[Example]:
        return iter(self._examples.values())

    def add(self, examples: Iterable[Example]) -> None:
        """Add examples behind those that wait."""
        for example in examples:
            length = len(example.inputs)
            self._examples[self._added] = example
            self._by_length.setdefault(length, {})[self._added] = example
            self._lengths |= 1 << length
            self._added += 1

    def take_row(self, room: Room, most: int, packing: Fit) -> list[Example]:
        """Take out the examples of the next row, of which the oldest is always one.

        Args:
          room: number of tokens of a row, at least those of the longest example.
          most: largest number of examples in a row.
          packing: "first-fit" takes the oldest example that fits into what is left of the row, again and
            again; "best-fit" the one with the longest input, and of equally long ones the oldest.
        """
        row = [self._remove(next(iter(self._examples)))]
        inputs, targets = room[0] - len(row[0].inputs), room[1] - len(row[0].targets)
        following = self._oldest if packing == "first-fit" else self._longest
        while len(row) < most and (number := following(inputs, targets)) is not None:
            row.append(self._remove(number))
            inputs, targets = inputs - len(row[-1].inputs), targets - len(row[-1].targets)
        return row

    def _oldest(self, inputs: int, targets: int) -> int | None:
        for number, example in self._examples.items():
            if len(example.inputs) <= inputs and len(example.targets) <= targets:
                return number
        return None

    def _longest(self, inputs: int, targets: int) -> int | None:
        fitting = self._lengths & ((2 << inputs) - 1)
        while fitting:
            length = fitting.bit_length() - 1
            for number, example in self._by_length[length].items():
                if len(example.targets) <= targets:
                    return number
            fitting ^= 1 << length
        return None

    def _remove(self, number: int) -> Example:
        example = self._examples.pop(number)
        length = len(example.inputs)
        same = self._by_length[length]
        del same[number]
        if not same:
            self._lengths ^= 1 << length
        return example


def pack_rows(
    rows: Sequence[Sequence[Example]], room: Room, most: int, start_id: int = 0
) -> dict[str, Int[np.ndarray, "..."]]:
    """Lay the examples of each row next to one another.

    Args:
      rows: the examples of each row.
      room: number of tokens of a row.
      most: largest number of examples in a row.
      start_id: the id that every target is predicted from first.

    Returns:
      The model's batch, all int32: `encoder_input_tokens` and `encoder_segment_ids` [rows, inputs];
      `decoder_input_tokens`, `decoder_target_tokens`, `decoder_loss_weights` and `decoder_segment_ids`
      [rows, targets]; `task_ids` [rows, most], with 0 for an example that is absent. Segment ids are seqio's:
      1 for the first example of a row, 2 for the second, 0 for padding.
    """

    def zeros(width: int) -> Int[np.ndarray, "rows width"]:
        return np.zeros((len(rows), width), np.int32)

    tokens, segments = zeros(room[0]), zeros(room[0])
    before, after, target_segments = zeros(room[1]), zeros(room[1]), zeros(room[1])
    ids = zeros(most)
    for number, row in enumerate(rows):
        read = written = 0
        for place, (inputs, targets, task, _) in enumerate(row):
            here = slice(read, read := read + len(inputs))
            tokens[number, here], segments[number, here] = inputs, place + 1
            begin = written
            here = slice(begin, written := begin + len(targets))
            after[number, here], target_segments[number, here] = targets, place + 1
            before[number, begin + 1 : written] = targets[:-1]
            before[number, begin : begin + 1] = start_id
            ids[number, place] = task
    return {
        "encoder_input_tokens": tokens,
        "encoder_segment_ids": segments,
        "decoder_input_tokens": before,
        "decoder_target_tokens": after,
        "decoder_loss_weights": (after > 0).astype(np.int32),
        "decoder_segment_ids": target_segments,
        "task_ids": ids,
    }
