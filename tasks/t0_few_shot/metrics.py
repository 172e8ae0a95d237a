"""Accuracy of rank classification: the choice with the best length-normalised score is the answer."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from poly_jax.errors import UserError


def labelled(text: str, example: Mapping[str, Any] | None = None, is_target: bool = False) -> Any:
    """Return a target's `label`, template and numbers of tokens of its choices: a seqio postprocessor."""
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
    """Return the percentage of examples whose best choice is the right one.

    Where several choices are equally good, the example counts as the chance of drawing the right one among
    them. So equal scores give chance level and do not favour the first choice.

    Args:
      targets: for each example, the result of `labelled`. It may have `correct`, whether each choice is
        right, in place of `label`, and the example's `weight` in the means.
      scores: summed log-probabilities of the choices; a choice without tokens is absent, whatever its score.
      length_norm: a score is divided by (number of tokens) ^ length_norm; 1 in the recipes (T-Few, arXiv
        2205.05638).
      by_template: whether every template shows every example: then `accuracy` is the mean over templates.
        T0 reports the median of the templates' accuracies, `median_accuracy`, and their interquartile range
        in percentage points, `interquartile_range` (arXiv 2110.08207). Quartiles between two templates are
        interpolated linearly.

    Raises:
      UserError: a choice has a score that is not a number.
    """
    tokens = np.array([target["tokens"] for target in targets])
    correct = np.array([_correct(target) for target in targets])
    weights = np.array([target.get("weight", 1.0) for target in targets])
    present = tokens > 0
    broken = (np.isnan(scores) & present).any(axis=-1)
    if broken.any():
        place = int(np.argmax(broken))
        raise UserError(
            f"{int(broken.sum())} of {len(targets)} examples have a choice whose score is not a number "
            f"(NaN), first example {place} (template {targets[place]['template']!r}); "
            "evaluate a checkpoint whose weights are finite"
        )
    normalised = np.where(present, scores / np.maximum(tokens, 1.0) ** length_norm, -np.inf)
    tied = present & (normalised == normalised.max(axis=-1, keepdims=True))
    hits = 100.0 * (tied & correct).sum(axis=-1) / tied.sum(axis=-1)
    results = {"accuracy": float(np.average(hits, weights=weights))}
    if by_template:
        templates = np.array([target["template"] for target in targets])
        accuracies = [
            np.average(hits[templates == name], weights=weights[templates == name])
            for name in np.unique(templates)
        ]
        first, median, third = np.percentile(accuracies, (25, 50, 75))
        results |= {"median_accuracy": float(median), "interquartile_range": float(third - first)}
    return results


def _correct(target: Mapping[str, Any]) -> Sequence[bool]:
    if "correct" in target:
        return target["correct"]
    return [place == target["label"] for place in range(len(target["tokens"]))]
