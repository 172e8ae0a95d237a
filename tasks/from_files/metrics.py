"""Metrics by name, for tasks whose metrics are chosen in a configuration. All are in percent."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from poly_jax.errors import UserError
from poly_jax.suggestion import close_names, did_you_mean
from poly_jax.tasks.crossfit import scores
from poly_jax.tasks.t0_few_shot.metrics import rank_accuracy

References = Sequence[Sequence[str]]

RANK_ACCURACY = "rank_accuracy"
"""The metric that needs answer choices; all others compare the model's output with the references."""


def answers(text: str, example: Mapping[str, Any] | None = None, is_target: bool = False) -> Any:
    """Return what metrics compare: a seqio postprocessor.

    It strips a prediction. Of a target it returns the references, or, where the task has choices, a
    dictionary with `references`, the index `label`, and the number of `tokens` of each choice.
    """
    if not is_target or example is None:
        return text.strip()
    references = [reference.decode() for reference in example["references"]]
    if "choices" not in example:
        return references
    return {
        "references": references,
        "label": int(example["label"]),
        "tokens": np.count_nonzero(example["choices"], axis=-1).tolist(),
    }


@dataclasses.dataclass(frozen=True)
class TextMetric:
    """A metric of predicted texts.

    Attributes:
      name: key of the result.
      score: function from the references of each example and the predictions to a fraction.
    """

    name: str
    score: Callable[[References, Sequence[str]], float]

    def __call__(self, targets: Sequence[Any], predictions: Sequence[str]) -> dict[str, float]:
        """Compute the metric of the results of `answers`, in percent."""
        references = [target["references"] if isinstance(target, dict) else target for target in targets]
        return {self.name: 100.0 * self.score(references, predictions)}


@dataclasses.dataclass(frozen=True)
class RankMetric:
    """The accuracy of rank classification; see `rank_accuracy`, with `length_norm` 1.

    Attributes:
      name: key of the result.
    """

    name: str

    def __call__(
        self, targets: Sequence[Mapping[str, Any]], scores: Float[np.ndarray, "examples choices"]
    ) -> dict[str, float]:
        """Compute the metric of the results of `answers`, in percent."""
        labelled = [{**target, "template": ""} for target in targets]
        return {self.name: rank_accuracy(labelled, np.asarray(scores))["accuracy"]}


Metric = TextMetric | RankMetric


def _exact_match(references: References, predictions: Sequence[str]) -> float:
    """Share of predictions that equal a reference, up to blanks around them."""
    return float(
        np.mean(
            [
                prediction.strip() in {text.strip() for text in texts}
                for texts, prediction in zip(references, predictions, strict=True)
            ]
        )
    )


def _rouge(kind: str) -> Callable[[References, Sequence[str]], float]:
    """Mean F-measure of rouge-score, with its stemmer, against the best reference of each prediction."""

    def score(references: References, predictions: Sequence[str]) -> float:
        from rouge_score import rouge_scorer

        scorer = rouge_scorer.RougeScorer([kind], use_stemmer=True)
        best = [
            max(scorer.score(reference, prediction)[kind].fmeasure for reference in texts)
            for texts, prediction in zip(references, predictions, strict=True)
        ]
        return float(np.mean(best))

    return score


def _matthews_correlation(references: References, predictions: Sequence[str]) -> float:
    """Matthews' correlation of the first references with the predictions, each text being a class."""
    from sklearn.metrics import matthews_corrcoef

    return float(matthews_corrcoef([texts[0] for texts in references], list(predictions)))


METRICS: Mapping[str, Metric] = {
    metric.name: metric
    for metric in (
        TextMetric("exact_match", _exact_match),
        TextMetric("accuracy", scores.accuracy),
        RankMetric(RANK_ACCURACY),
        TextMetric("macro_f1", scores.classification_f1),
        TextMetric("squad_exact_match", scores.exact_match),
        TextMetric("squad_f1", scores.question_f1),
        TextMetric("rouge1", _rouge("rouge1")),
        TextMetric("rouge2", _rouge("rouge2")),
        TextMetric("rougeL", _rouge("rougeL")),
        TextMetric("pearson_correlation", scores.pearson_correlation),
        TextMetric("matthews_correlation", _matthews_correlation),
    )
}
"""The metrics by name; docs/your_tasks.md describes them."""


def named_metrics(names: Sequence[str], choices: bool) -> list[Metric]:
    """Return the metrics with some names.

    Args:
      names: keys of `METRICS`.
      choices: whether the task has answer choices.

    Raises:
      UserError: a name is not known, or its metric needs choices and the task has none.
    """
    for name in names:
        if name not in METRICS:
            close = did_you_mean(close_names(name, METRICS)) or f"use one of {', '.join(map(repr, METRICS))}"
            raise UserError(f"from_files.register.metrics has {name!r}, which is not a metric; {close}")
        if name == RANK_ACCURACY and not choices:
            raise UserError(
                f"from_files.register.metrics has {name!r}, which ranks answer choices; bind "
                "from_files.register.choices too"
            )
    return [METRICS[name] for name in names]
