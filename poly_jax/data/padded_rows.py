"""Lays out one example to a row, and fills rows up with padding."""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Int

from poly_jax.data.packing import Example


def pad_rows(
    examples: Sequence[Example], sequence_length: Mapping[str, int], start_id: int = 0
) -> dict[str, Int[np.ndarray, "..."]]:
    """Return the batch that seqio's encoder-decoder converter makes of examples, with their task ids.

    Args:
      examples: the examples, none longer than the lengths.
      sequence_length: number of tokens of `inputs` and of `targets` in a row.
      start_id: the id that decoder inputs begin with.

    Returns:
      int32 arrays: `encoder_input_tokens` [rows, inputs], `decoder_input_tokens`, `decoder_target_tokens` and
      `decoder_loss_weights` [rows, targets], `task_ids` [rows].
    """
    inputs = _padded([example.inputs for example in examples], sequence_length["inputs"])
    targets = _padded([example.targets for example in examples], sequence_length["targets"])
    before = np.full_like(targets, start_id)
    before[:, 1:] = targets[:, :-1]
    return {
        "encoder_input_tokens": inputs,
        "decoder_input_tokens": before,
        "decoder_target_tokens": targets,
        "decoder_loss_weights": (targets != 0).astype(np.int32),
        "task_ids": np.array([example.task for example in examples], np.int32),
    }


def _padded(rows: Sequence[Int[np.ndarray, "_"]], length: int) -> Int[np.ndarray, "rows length"]:
    padded = np.zeros((len(rows), length), np.int32)
    for place, row in zip(padded, rows, strict=True):
        place[: len(row)] = row
    return padded
