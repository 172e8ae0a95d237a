"""Accuracy of rank classification: the choice with the best length-normalised score is the answer."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float


def labelled(text: str, example: Mapping[str, Any] | None = None, is_target: bool = False) -> Any:
    """seqio postprocessor: of a target its `label`, the choices' numbers of tokens and the template."""
    if not is_target or example is None:
        return text
    return {
        "label": int(example["label"]),
        "tokens": np.count_nonzero(example["choices"], axis=-1).tolist(),
        "template": example["template"].decode(),
    }


def rank_accuracy(
    targets: Sequence[Mapping[str, Any]],
    scores: Float[np.ndarray, "examples choices"],
    *,
    length_norm: float = 1.0,
    by_template: bool = False,
) -> dict[str, float]:
    """Percentage of examples whose best choice is the right one.

    Args:
      targets: of `labelled`.
      scores: summed log-probabilities of the choices; -inf where there is none.
      length_norm: a score is divided by (number of tokens) ^ length_norm; 1 in the recipes (T-Few, arXiv
        2205.05638).
      by_template: whether every template shows every example: then `accuracy` is the mean over templates, and
        `median_accuracy` their median, which T0 reports (arXiv 2110.08207).
    """
    tokens = np.array([target["tokens"] for target in targets])
    best = np.argmax(scores / np.maximum(tokens, 1.0) ** length_norm, axis=-1)
    hits = 100.0 * (best == [target["label"] for target in targets])
    results = {"accuracy": float(hits.mean())}
    if by_template:
        templates = np.array([target["template"] for target in targets])
        accuracies = [hits[templates == name].mean() for name in np.unique(templates)]
        results["median_accuracy"] = float(np.median(accuracies))
    return results
