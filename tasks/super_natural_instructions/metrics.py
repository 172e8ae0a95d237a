"""Exact match and ROUGE-L of the official evaluation, per task and over tasks.

As in Wang et al., Super-NaturalInstructions (arXiv 2204.07705), an instance's score is the best over its
references, the mean is over instances, and the scale is 0 to 100. ROUGE-L (Lin, 2004) is computed by
rouge-score, over the tokens of `rouge_tokens.py`.
"""

import functools
import string
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, get_args

from poly_jax.data.quiet import seqio
from poly_jax.errors import UserError
from poly_jax.tasks.super_natural_instructions.rouge_tokens import (
    RougeTokens,
    WordTokens,
    english_sees,
    gpt2_tokens,
)

if TYPE_CHECKING:
    from rouge_score import rouge_scorer

BLIND = "english (blind to this script)"
"""The value of `rougeL_tokens` for a task in whose references the English tokens ignore most letters."""

_NAMED = 5
_PUNCTUATION = str.maketrans("", "", string.punctuation)


def exact_match(targets: Sequence[Sequence[str]], predictions: Sequence[str]) -> dict[str, float]:
    """Return the percentage of predictions that equal a reference, up to case, ASCII punctuation and spacing.

    Args:
      targets: the references of each instance.
      predictions: the prediction for each instance.
    """
    hits = [
        any(_normalised(prediction) == _normalised(reference) for reference in references)
        for references, prediction in zip(targets, predictions, strict=True)
    ]
    return {"exact_match": _percentage(hits)}


def rouge_l(
    targets: Sequence[Sequence[str]],
    predictions: Sequence[str],
    tokens: RougeTokens = "auto",
    gpt2_merges: str | None = None,
) -> dict[str, Any]:
    """Return the mean ROUGE-L F-measure, in percent, against the best reference of each prediction.

    Args:
      targets: the references of each instance.
      predictions: the prediction for each instance.
      tokens: the tokens that are compared: "english" those of the official English track, "gpt2" those of
        the cross-lingual track.
      gpt2_merges: path of GPT-2's `merges.txt`, which "gpt2" needs.

    Returns:
      `rougeL`, and in `rougeL_tokens` the tokens that were compared.

    Raises:
      UserError: `tokens` is "gpt2" and no merges are given.
    """
    sees = english_sees(reference for references in targets for reference in references)
    if tokens == "auto":
        tokens = "english" if sees else "words" if gpt2_merges is None else "gpt2"
    scorer = _scorer(tokens, gpt2_merges)
    scores = [
        max(scorer.score(reference, prediction)["rougeL"].fmeasure for reference in references)
        for references, prediction in zip(targets, predictions, strict=True)
    ]
    compared = BLIND if tokens == "english" and not sees else tokens
    return {"rougeL": _percentage(scores), "rougeL_tokens": seqio.metrics.Text(compared)}


def scores(
    targets: Sequence[Sequence[str]],
    predictions: Sequence[str],
    tokens: RougeTokens = "auto",
    gpt2_merges: str | None = None,
) -> dict[str, Any]:
    """Return both metrics, and the number of instances, by which `aggregate` weights tasks.

    Arguments, results and errors are the same as in `rouge_l` and `exact_match`.
    """
    return {
        **exact_match(targets, predictions),
        **rouge_l(targets, predictions, tokens, gpt2_merges),
        "instances": float(len(predictions)),
    }


class Scores:
    """The metric of a task of Super-NaturalInstructions, and the summary over several tasks."""

    def __init__(self, tokens: RougeTokens, gpt2_merges: str | None) -> None:
        """Check the settings of ROUGE-L, which `rouge_l` describes.

        Raises:
          UserError: the tokens are not known, or GPT-2's merges are needed and missing or not readable.
        """
        if tokens not in get_args(RougeTokens):
            known = ", ".join(map(repr, get_args(RougeTokens)))
            raise UserError(
                f"super_natural_instructions.register.rouge_tokens is {tokens!r}; use one of {known}"
            )
        if tokens == "gpt2" or gpt2_merges is not None:
            _scorer("gpt2", gpt2_merges)
        self._tokens: RougeTokens = tokens
        self._gpt2_merges = gpt2_merges

    def __call__(self, targets: Sequence[Sequence[str]], predictions: Sequence[str]) -> dict[str, Any]:
        """Return the `scores` of one task."""
        return scores(targets, predictions, self._tokens, self._gpt2_merges)

    def summary(
        self, tasks: Mapping[str, seqio.Task], metrics: Mapping[str, Mapping[str, Any]]
    ) -> tuple[dict[str, dict[str, float]], list[str]]:
        """Return the official overall figures, and notices about how to read them.

        Args:
          tasks: the tasks with this metric, by name.
          metrics: the metrics of each of these tasks.

        Returns:
          The metrics over all instances (`overall`) and over those of each category (`category <name>`), and
          the notices.
        """
        known = {name: task.source.categories for name, task in tasks.items()}
        first = {name: found[0] for name, found in known.items() if found}
        groups = aggregate(metrics, first)
        named = {"overall": groups.pop("all")} | {f"category {name}": group for name, group in groups.items()}
        return named, _notices(metrics)


def all_references(text: str, example: Mapping[str, Any] | None = None, is_target: bool = False) -> Any:
    """Return a target's references and leave a prediction unchanged: a seqio postprocessor."""
    if not is_target or example is None:
        return text
    return [reference.decode() for reference in example["references"]]


def aggregate(
    per_task: Mapping[str, Mapping[str, Any]], categories: Mapping[str, str]
) -> dict[str, dict[str, float]]:
    """Compute the metrics over all instances, and over those of each category.

    Args:
      per_task: `exact_match`, `rougeL` and `instances` of each task.
      categories: the category of each task that has one, as `categories()` returns it.

    Returns:
      The same three values under `all` and under each category's name.
    """
    groups: dict[str, list[Mapping[str, Any]]] = {"all": list(per_task.values())}
    for name in sorted(categories):
        groups.setdefault(categories[name], []).append(per_task[name])
    return {group: _micro_average(groups[group]) for group in ("all", *sorted(groups.keys() - {"all"}))}


def _notices(metrics: Mapping[str, Mapping[str, Any]]) -> list[str]:
    by_tokens: dict[str, list[str]] = {}
    for name in sorted(metrics):
        by_tokens.setdefault(metrics[name]["rougeL_tokens"].textdata, []).append(name)
    said = []
    if BLIND in by_tokens:
        said.append(
            "rougeL over English tokens sees only the letters a to z and digits, and says nothing about "
            f"{_some(by_tokens[BLIND])}: bind super_natural_instructions.register.rouge_tokens = 'auto'"
        )
    if "words" in by_tokens:
        said.append(
            f"rougeL of {_some(by_tokens['words'])}, in another script, compares words where the official "
            "cross-lingual evaluation compares GPT-2's tokens; for these, bind "
            "super_natural_instructions.register.gpt2_merges to the path of GPT-2's merges.txt"
        )
    return said


def _some(names: Sequence[str]) -> str:
    shown = ", ".join(names[:_NAMED])
    return shown if len(names) <= _NAMED else f"{len(names)} tasks ({shown}, ...)"


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
def _scorer(tokens: RougeTokens, gpt2_merges: str | None) -> "rouge_scorer.RougeScorer":
    # It imports NLTK, which takes a while, and training needs no scores.
    from rouge_score import rouge_scorer

    if tokens == "english":
        return rouge_scorer.RougeScorer(["rougeL"], use_stemmer=True)
    if tokens == "words":
        return rouge_scorer.RougeScorer(["rougeL"], tokenizer=WordTokens())
    if gpt2_merges is None:
        raise UserError(
            "super_natural_instructions.register.rouge_tokens is 'gpt2', which needs gpt2_merges: the path "
            "of GPT-2's merges.txt"
        )
    return rouge_scorer.RougeScorer(["rougeL"], tokenizer=gpt2_tokens(gpt2_merges))
