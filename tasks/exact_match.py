"""Exact match, the metric of benchmarks whose predictions are compared as they are."""

from collections.abc import Sequence

import numpy as np


def exact_match(targets: Sequence[str], predictions: Sequence[str]) -> dict[str, float]:
    """Return the percentage of predictions that equal their targets in every byte."""
    hits = [target == prediction for target, prediction in zip(targets, predictions, strict=True)]
    return {"exact_match": 100.0 * float(np.mean(hits))}
