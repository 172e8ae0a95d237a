"""Numbers about a sample of examples: lengths, what is cut, and how full rows are."""

import dataclasses
from collections.abc import Iterable

import numpy as np
from jaxtyping import Int

from poly_jax.data.stream import Batch

PERCENTILES = (50, 90, 95, 99, 100)


@dataclasses.dataclass(frozen=True)
class Lengths:
    """The lengths of the texts of one feature.

    Attributes:
      percentiles: number of tokens at each of `PERCENTILES` of the examples; 100 is the longest.
      share_cut: share of examples with more tokens than a row has.
    """

    percentiles: tuple[int, ...]
    share_cut: float


def lengths(tokens: Int[np.ndarray, "examples"], most: int) -> Lengths:
    """Describe numbers of tokens, of which at most `most` are read.

    A percentile is the smallest number that this share of the examples does not exceed.
    """
    found = np.percentile(tokens, PERCENTILES, method="inverted_cdf")
    return Lengths(tuple(int(number) for number in found), float(np.mean(tokens > most)))


@dataclasses.dataclass(frozen=True)
class Fill:
    """The fill of rows: the share of tokens that are not padding.

    Attributes:
      rows: number of rows.
      inputs: share of the rows' input tokens that are not padding.
      targets: the same of the target tokens.
      examples: number of examples in a row, on average.
    """

    rows: int
    inputs: float
    targets: float
    examples: float


def fill(rows: Iterable[Batch]) -> Fill:
    """Measure rows, each a batch of one row, with or without segment ids."""
    inputs, targets, examples = [], [], []
    for row in rows:
        inputs.append(np.mean(row["encoder_input_tokens"] != 0))
        targets.append(np.mean(row["decoder_target_tokens"] != 0))
        examples.append(int(row.get("decoder_segment_ids", np.ones(1)).max()))
    return Fill(len(inputs), float(np.mean(inputs)), float(np.mean(targets)), float(np.mean(examples)))
