"""Exact match and ROUGE-L of the official evaluation, per task and over tasks.

After Wang et al., Super-NaturalInstructions (arXiv 2204.07705): the best of an instance's references counts,
the mean is over instances, the scale is 0 to 100. ROUGE-L (Lin, 2004) is rouge-score's, with its stemmer.
"""

import functools
import string
from collections.abc import Mapping, Sequence
from typing import Any

from rouge_score import rouge_scorer

_PUNCTUATION = str.maketrans("", "", string.punctuation)


def exact_match(targets: Sequence[Sequence[str]], predictions: Sequence[str]) -> dict[str, float]:
    """Percentage of predictions equal to a reference, but for case, ASCII punctuation and spacing.

    Args:
      targets: per instance, its references.
      predictions: per instance.
    """
    hits = [
        any(_normalised(prediction) == _normalised(reference) for reference in references)
        for references, prediction in zip(targets, predictions, strict=True)
    ]
    return {"exact_match": _percentage(hits)}


def rouge_l(targets: Sequence[Sequence[str]], predictions: Sequence[str]) -> dict[str, float]:
    """Mean ROUGE-L F-measure, in percent, against the reference that suits the prediction best.

    Args: as of `exact_match`.
    """
    scorer = _scorer()
    scores = [
        max(scorer.score(reference, prediction)["rougeL"].fmeasure for reference in references)
        for references, prediction in zip(targets, predictions, strict=True)
    ]
    return {"rougeL": _percentage(scores)}


def scores(targets: Sequence[Sequence[str]], predictions: Sequence[str]) -> dict[str, float]:
    """Both metrics, and the number of instances, which `aggregate` weighs tasks by.

    Args: as of `exact_match`.
    """
    return {
        **exact_match(targets, predictions),
        **rouge_l(targets, predictions),
        "instances": float(len(predictions)),
    }


def all_references(text: str, example: Mapping[str, Any] | None = None, is_target: bool = False) -> Any:
    """seqio postprocessor: the references of a target; a prediction's text as it is."""
    if not is_target or example is None:
        return text
    return [reference.decode() for reference in example["references"]]


def aggregate(
    per_task: Mapping[str, Mapping[str, float]], categories: Mapping[str, str]
) -> dict[str, dict[str, float]]:
    """The metrics over all instances, and over those of each category.

    Args:
      per_task: `exact_match`, `rougeL` and `instances` of each task.
      categories: each task's category, as `categories()` gives it.

    Returns:
      The same three under `all` and under each category's name.
    """
    groups: dict[str, list[Mapping[str, float]]] = {"all": list(per_task.values())}
    for name in sorted(per_task):
        groups.setdefault(categories[name], []).append(per_task[name])
    return {group: _micro_average(members) for group, members in groups.items() if members}


def _micro_average(tasks: Sequence[Mapping[str, float]]) -> dict[str, float]:
    total = sum(task["instances"] for task in tasks)
    means = {
        metric: sum(task[metric] * task["instances"] for task in tasks) / total
        for metric in ("exact_match", "rougeL")
    }
    return {**means, "instances": total}


def _normalised(text: str) -> str:
    return " ".join(text.lower().translate(_PUNCTUATION).split())


def _percentage(scores: Sequence[float]) -> float:
    return 100.0 * sum(scores) / len(scores) if scores else 0.0


@functools.cache
def _scorer() -> rouge_scorer.RougeScorer:
    return rouge_scorer.RougeScorer(["rougeL"], use_stemmer=True)
