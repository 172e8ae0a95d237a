"""Lays out one example to a row, and fills rows up with padding."""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Int

from poly_jax.data.example_rows import ExampleRows, Rows

Ids = Int[np.ndarray, "_"]


def padded_rows(
    found: ExampleRows, numbers: Rows, sequence_length: Mapping[str, int], start_id: int = 0
) -> dict[str, Int[np.ndarray, "..."]]:
    """Return the batch that seqio's encoder-decoder converter makes of examples, with their task ids.

    Args:
      found: the examples, none longer than the lengths.
      numbers: the numbers of the rows to take.
      sequence_length: number of tokens of `inputs` and of `targets` in a row.
      start_id: the id that decoder inputs begin with.

    Returns:
      int32 arrays: `encoder_input_tokens` [rows, inputs], `decoder_input_tokens`, `decoder_target_tokens` and
      `decoder_loss_weights` [rows, targets], `task_ids` [rows].
    """
    inputs = _padded(found.inputs.rows(numbers), sequence_length["inputs"])
    targets = _padded(found.targets.rows(numbers), sequence_length["targets"])
    before = np.full_like(targets, start_id)
    before[:, 1:] = targets[:, :-1]
    return {
        "encoder_input_tokens": inputs,
        "decoder_input_tokens": before,
        "decoder_target_tokens": targets,
        "decoder_loss_weights": (targets != 0).astype(np.int32),
        "task_ids": found.tasks[numbers],
    }


def padded_choices(
    found: ExampleRows, numbers: Rows, most: int, length: int
) -> dict[str, Int[np.ndarray, "..."]]:
    """Return what answer choices add to a batch; see `RoutedEncDecFeatureConverter`.

    Args:
      found: the examples, all with choices.
      numbers: the numbers of the rows to take.
      most: number of choices of each row of the batch, to which absent ones are added.
      length: number of tokens of a choice.
    """
    choices = found.choices
    assert choices is not None
    begins, ends = choices.borders[numbers], choices.borders[numbers + 1]
    tokens = np.zeros((len(numbers), most, length), np.int32)
    present = np.arange(most) < (ends - begins)[:, None]
    tokens[present] = _padded(choices.texts.rows((begins[:, None] + np.arange(most))[present]), length)
    return {
        "choices": tokens,
        "labels": choices.labels[numbers],
        "example_ids": found.example_ids[numbers],
    }


def _padded(rows: Sequence[Ids], length: int) -> Int[np.ndarray, "rows length"]:
    # Copies of rows cost less than one gather of all their tokens where rows are long.
    padded = np.zeros((len(rows), length), np.int32)
    for place, row in zip(padded, rows, strict=True):
        place[: len(row)] = row
    return padded
