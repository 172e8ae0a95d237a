"""The seven metrics of CrossFit, as fractions (Ye et al., arXiv 2104.08835).

Each takes the references of every example and one stripped prediction for each. Those that compare with one
label use the first reference. scikit-learn and SciPy are imported where they are used, as they take a second.
"""

import math
import re
import string
import warnings
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import numpy as np

from poly_jax.errors import UserError
from poly_jax.tasks.crossfit.rouge_l import rouge_l_f

MetricName = Literal[
    "ACC", "Classification-F1", "EM", "QA-F1", "Rouge-L", "Pearson-Correlation", "Matthew-Correlation"
]
References = Sequence[Sequence[str]]

_PUNCTUATION = str.maketrans("", "", string.punctuation)
_ARTICLE = re.compile(r"\b(a|an|the)\b")
_NUMBER = re.compile(r"[-+]?(\d*\.\d+|\d+)")
_ACCEPTABLE = "acceptable"


def accuracy(references: References, predictions: Sequence[str]) -> float:
    """Return the share of predictions that equal a reference up to upper and lower case."""
    return _mean_of_best(lambda one, other: float(one.lower() == other.lower()), references, predictions)


def exact_match(references: References, predictions: Sequence[str]) -> float:
    """Return the share of predictions that equal a reference after SQuAD's normalisation.

    The normalisation makes letters lower case and removes ASCII punctuation, the words a, an and the, and
    repeated blanks (Rajpurkar et al., arXiv 1606.05250).
    """
    return _mean_of_best(lambda one, other: float(_words(one) == _words(other)), references, predictions)


def question_f1(references: References, predictions: Sequence[str]) -> float:
    """Return the mean F1 of the words, as a bag, against the best reference, after SQuAD's normalisation.

    Without a common word it is 0, even if both texts have no word.
    """
    return _mean_of_best(_bag_f1, references, predictions)


def rouge_l(references: References, predictions: Sequence[str]) -> float:
    """Return the mean `rouge_l_f` against the best reference; 0 for predictions of ASCII punctuation only."""

    def score(prediction: str, reference: str) -> float:
        return rouge_l_f(prediction, reference) if prediction.translate(_PUNCTUATION) else 0.0

    return _mean_of_best(score, references, predictions)


def classification_f1(references: References, predictions: Sequence[str]) -> float:
    """Return the macro F1 over all texts that are a label or a prediction.

    Case counts. Every predicted text that is no label is one more class, with an F1 of 0.
    """
    from sklearn.metrics import f1_score

    return float(f1_score(_labels(references), list(predictions), average="macro", zero_division=0.0))


def matthews_correlation(references: References, predictions: Sequence[str]) -> float:
    """Return Matthews' correlation of being exactly "acceptable"; 0 where one side has only one class."""
    from sklearn.metrics import matthews_corrcoef

    wanted = [label == _ACCEPTABLE for label in _labels(references)]
    return float(matthews_corrcoef(wanted, [prediction == _ACCEPTABLE for prediction in predictions]))


def pearson_correlation(references: References, predictions: Sequence[str]) -> float:
    """Return Pearson's correlation of the labels with the first number in each prediction.

    A prediction without a number counts as 0. The result is not a number (NaN) where all labels or all
    predictions are the same.

    Raises:
      UserError: a label is not a number.
    """
    from scipy.stats import pearsonr

    wanted = [_label_number(label) for label in _labels(references)]
    found = [_number(prediction) for prediction in predictions]
    if len(set(wanted)) < 2 or len(set(found)) < 2:
        return math.nan
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Values that are nearly the same; the result says enough.
        return float(pearsonr(wanted, found)[0])


METRICS: Mapping[MetricName, Callable[[References, Sequence[str]], float]] = {
    "ACC": accuracy,
    "Classification-F1": classification_f1,
    "EM": exact_match,
    "QA-F1": question_f1,
    "Rouge-L": rouge_l,
    "Pearson-Correlation": pearson_correlation,
    "Matthew-Correlation": matthews_correlation,
}
"""The metrics by CrossFit's names for them."""


def _mean_of_best(
    score: Callable[[str, str], float], references: References, predictions: Sequence[str]
) -> float:
    return float(
        np.mean(
            [
                max(score(prediction, reference) for reference in each)
                for each, prediction in zip(references, predictions, strict=True)
            ]
        )
    )


def _labels(references: References) -> list[str]:
    return [each[0] for each in references]


def _words(text: str) -> list[str]:
    return _ARTICLE.sub(" ", text.lower().translate(_PUNCTUATION)).split()


def _bag_f1(prediction: str, reference: str) -> float:
    predicted, wanted = _words(prediction), _words(reference)
    common = (Counter(predicted) & Counter(wanted)).total()
    if not common:
        return 0.0
    precision, recall = common / len(predicted), common / len(wanted)
    return 2 * precision * recall / (precision + recall)


def _number(text: str) -> float:
    match = _NUMBER.search(text)
    return float(match[0]) if match else 0.0


def _label_number(label: str) -> float:
    try:
        return float(label)
    except ValueError:
        raise UserError(
            f"label {label!r:.80} is not a number, which Pearson-Correlation needs; repair the task's files, "
            "or give the task another metric"
        ) from None
