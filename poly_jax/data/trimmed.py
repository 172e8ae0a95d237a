"""Rows without padding that none of them needs, in one of few widths, each of which is compiled once."""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Int

# A shorter width would save less time than its own program takes to compile.
SHORTEST_INPUTS = 64
SHORTEST_TARGETS = 16

_WITH_TARGETS = ("decoder_target_tokens", "decoder_input_tokens", "decoder_loss_weights")


def row_widths(tokens: Int[np.ndarray, "rows *choices length"], shortest: int) -> Int[np.ndarray, "rows"]:
    """Return for each row the half, quarter, ... of the length, of at least `shortest`, that holds the row.

    Args:
      tokens: rows, padded at their ends with 0; a row of several choices needs the width of the longest.
      shortest: the smallest width.
    """
    present = tokens.any(axis=tuple(range(1, tokens.ndim - 1)))
    length = tokens.shape[-1]
    longest = (present * np.arange(1, length + 1)).max(axis=-1, initial=0)
    found = np.full(len(tokens), length)
    while length % 2 == 0 and length // 2 >= shortest:
        length //= 2
        found[longest <= length] = length
    return found


def trimmed(
    tokens: Int[np.ndarray, "rows *choices length"], shortest: int
) -> Int[np.ndarray, "rows *choices width"]:
    """Return the rows in the largest width that one of them needs; see `row_widths`."""
    return tokens[..., : row_widths(tokens, shortest).max(initial=0)]


def trimmed_examples(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return examples with inputs, targets and answer choices of the smallest widths that hold all of them.

    Args:
      arrays: what `poly_jax.data.padded_rows` returns; arrays of other names stay as they are.
    """
    inputs = trimmed(arrays["encoder_input_tokens"], SHORTEST_INPUTS)
    width = trimmed(arrays["decoder_target_tokens"], SHORTEST_TARGETS).shape[-1]
    found = {**arrays, "encoder_input_tokens": inputs}
    found |= {name: arrays[name][:, :width] for name in _WITH_TARGETS}
    if "choices" in arrays:
        found["choices"] = trimmed(arrays["choices"], SHORTEST_TARGETS)
    return found


def widths(arrays: Mapping[str, np.ndarray]) -> tuple[int, ...]:
    """Return the widths of inputs, targets and answer choices."""
    names = ("encoder_input_tokens", "decoder_target_tokens", "choices")
    return tuple(arrays[name].shape[-1] for name in names if name in arrays)
