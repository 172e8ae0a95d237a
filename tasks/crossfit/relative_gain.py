"""Sums up the scores of several tasks: over the samples of a task, and against a baseline."""

import math
import statistics
from collections.abc import Mapping, Sequence

from poly_jax.errors import UserError


def median_of_samples(scores: Mapping[str, Sequence[float]]) -> dict[str, float]:
    """Return each task's median over its samples, whose mean over tasks MHR reports (arXiv 2211.03831).

    Args:
      scores: the scores of each task, one for each sample.

    Raises:
      UserError: a task has no score, or one that is not finite.
    """
    return {task: statistics.median(_finite(task, values)) for task, values in scores.items()}


def mean_of_samples(scores: Mapping[str, Sequence[float]]) -> dict[str, float]:
    """Return each task's mean over its samples, which CrossFit compares (arXiv 2104.08835).

    Arguments and errors are those of `median_of_samples`.
    """
    return {task: statistics.fmean(_finite(task, values)) for task, values in scores.items()}


def average_relative_gain(method: Mapping[str, float], baseline: Mapping[str, float]) -> float:
    """Return the mean over tasks of (method - baseline) / baseline, in percent (arXiv 2104.08835).

    The gain of a correlation that is negative for the baseline has the wrong sign, as in the paper.

    Args:
      method: the score of each task, such as its mean over samples.
      baseline: the scores of the same tasks on the same scale, by fine-tuning the same model directly.

    Raises:
      UserError: the tasks are not the same, there is none, a score is not finite, or a baseline is 0.
    """
    if method.keys() != baseline.keys() or not method:
        only = sorted(method.keys() ^ baseline.keys())
        raise UserError(
            f"the average relative gain compares the same tasks, and only one side has {only or 'none'}; "
            "give scores of the same tasks to both"
        )
    gains = []
    for task in method:
        (score,), (base,) = _finite(task, [method[task]]), _finite(task, [baseline[task]])
        if base == 0:
            raise UserError(
                f"the baseline of task {task!r} is 0, so that its relative gain is not defined; leave it out"
            )
        gains.append((score - base) / base)
    return 100.0 * statistics.fmean(gains)


def _finite(task: str, values: Sequence[float]) -> Sequence[float]:
    if not values or not all(map(math.isfinite, values)):
        raise UserError(
            f"the scores of task {task!r} are {list(values)}; give at least one, and only finite numbers"
        )
    return values
