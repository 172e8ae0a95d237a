"""Sums up the scores of several tasks: over the samples of a task, and against a baseline.

    python -m poly_jax.tasks.crossfit.relative_gain --results=runs/crossfit_sweep/results.jsonl \
      --method=mhr --baseline=full

prints the average relative gain of one method of a sweep over another.
"""

import argparse
import math
import statistics
import sys
from collections.abc import Mapping, Sequence

from etils import epath

from poly_jax.counted import counted
from poly_jax.errors import UserError
from poly_jax.reporting.results_file import ResultsFile


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

    Arguments and errors are the same as in `median_of_samples`.
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


def sweep_scores(results: epath.PathLike, method: str, metric: str = "score") -> dict[str, list[float]]:
    """Return the scores of each task in the results of a sweep, one for each sample.

    Args:
      results: the sweep's `results.jsonl`.
      method: the method's name in the sweep's table.
      metric: name of the metric.

    Raises:
      UserError: the file is missing or holds something else, or has no score of the method.
    """
    path = epath.Path(results)
    if not path.exists():
        raise UserError(f"there is no file {results}; give the results.jsonl of a sweep")
    scores: dict[str, list[float]] = {}
    setups = set()
    for key, result in ResultsFile(path).matching(method=method):
        value = (result.get("metrics") or {}).get(metric)
        if value is None:
            raise UserError(f"{results} has no {metric!r} of {method!r} on task {key.get('task')!r}")
        scores.setdefault(str(key.get("task")), []).append(float(value))
        setups.add(key.get("setup"))
    if len(setups) != 1:
        raise UserError(
            f"{results} has results of method {method!r} with {len(setups)} configurations; give the results "
            "of one sweep, and a method of its table"
        )
    return scores


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the average relative gain of a method; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m poly_jax.tasks.crossfit.relative_gain",
        description="Prints the average relative gain (ARG) of a method of a sweep over another.",
    )
    parser.add_argument("--results", required=True, help="the sweep's results.jsonl")
    parser.add_argument("--method", required=True, help="the method's name in the sweep's table")
    parser.add_argument("--baseline", required=True, help="the name of direct fine-tuning in the table")
    given = parser.parse_args(arguments)
    try:
        method, baseline = (sweep_scores(given.results, name) for name in (given.method, given.baseline))
        gain = average_relative_gain(mean_of_samples(method), mean_of_samples(baseline))
    except UserError as error:
        print(error, file=sys.stderr)
        return 1
    print(f"{counted(len(method), 'task')}: ARG of {given.method} over {given.baseline} is {gain:.2f} %")
    return 0


if __name__ == "__main__":
    sys.exit(main())
