"""Packs several examples into each row of a batch, so that little of what is computed is padding."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Literal

import numpy as np
from jaxtyping import Bool, Int

Packing = Literal["none", "first-fit", "best-fit"]
"""How the examples of a row are chosen; "none" pads one example to a row."""

Room = tuple[int, int]
"""Number of tokens of the inputs and of the targets of a row."""

Example = tuple[Int[np.ndarray, "inputs"], Int[np.ndarray, "targets"], int]
"""Tokens of the input and of the target, without padding, and the task's id."""


def next_row(
    inputs: Int[np.ndarray, "waiting"],
    targets: Int[np.ndarray, "waiting"],
    room: Room,
    most: int,
    packing: Literal["first-fit", "best-fit"],
) -> list[int]:
    """Choose the examples of the next row among those that wait, of which the oldest is always taken.

    Args:
      inputs: number of input tokens of each waiting example, the oldest first.
      targets: number of target tokens of each.
      room: number of tokens of a row, at least those of the longest example.
      most: largest number of examples in a row.
      packing: "first-fit" takes the oldest example that fits into what is left of the row, again and again;
        "best-fit" the one with the longest input.

    Returns:
      Positions of the examples among those that wait, in the order of the row.
    """
    left_inputs, left_targets = room
    free: Bool[np.ndarray, "waiting"] = np.ones(len(inputs), bool)
    row: list[int] = []
    choice = 0
    while True:
        row.append(choice)
        free[choice] = False
        left_inputs -= int(inputs[choice])
        left_targets -= int(targets[choice])
        fits = free & (inputs <= left_inputs) & (targets <= left_targets)
        choice = int(np.argmax(fits if packing == "first-fit" else np.where(fits, inputs + 1, 0)))
        if len(row) == most or not fits[choice]:
            return row


class Waiting:
    """Examples that wait to be packed, the oldest first."""

    def __init__(self, examples: Iterable[Example] = ()) -> None:
        self._examples: list[Example] = []
        # Kept beside the examples, because every row is chosen by all lengths.
        self._lengths: Int[np.ndarray, "waiting 2"] = np.zeros((0, 2), np.int64)
        self.add(examples)

    def __len__(self) -> int:
        return len(self._examples)

    def __iter__(self) -> Iterator[Example]:
        return iter(self._examples)

    def add(self, examples: Iterable[Example]) -> None:
        """Add examples behind those that wait."""
        before = len(self._examples)
        self._examples += examples
        new = [(len(inputs), len(targets)) for inputs, targets, _ in self._examples[before:]]
        self._lengths = np.concatenate([self._lengths, np.array(new, np.int64).reshape(-1, 2)])

    def take_row(self, room: Room, most: int, packing: Literal["first-fit", "best-fit"]) -> list[Example]:
        """Take out the examples of the next row; see `next_row`."""
        inputs, targets = self._lengths.T
        chosen = next_row(inputs, targets, room, most, packing)
        row = [self._examples[place] for place in chosen]
        for place in sorted(chosen, reverse=True):
            del self._examples[place]
        self._lengths = np.delete(self._lengths, chosen, axis=0)
        return row


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
        for place, (inputs, targets, task) in enumerate(row):
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
