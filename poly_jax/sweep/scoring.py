"""Scores of adapted models on a task's evaluation split, by the task's own metrics."""

import functools
from typing import Any

from poly_jax.data.feature_converter import RoutedEncDecFeatureConverter
from poly_jax.data.quiet import seqio
from poly_jax.data.routed import TASK_IDS, routed
from poly_jax.data.task_table import TaskTable
from poly_jax.errors import UserError
from poly_jax.evaluation.model_functions import model_functions
from poly_jax.evaluation.predict import Predictor
from poly_jax.evaluation.report import with_mean
from poly_jax.evaluation.targets_themselves import TARGETS_THEMSELVES
from poly_jax.experiment import Experiment

# Seed of the random numbers in a task's own preprocessors, as in `poly-jax eval`.
_SEED = 0


class TaskScorer:
    """Evaluates any number of models on one task, whose examples are read once."""

    def __init__(self, experiment: Experiment, task: str, split: str):
        """Read the split of a registered seqio task.

        Raises:
          UserError: the task lacks the split, examples in it, or a metric.
        """
        self._task = task
        check_scorable(task, split)
        self._evaluator = seqio.Evaluator(
            routed(task, TaskTable.of(task)).name,
            RoutedEncDecFeatureConverter(choices=True),
            eval_split=split,
            sequence_length={**experiment.data.sequence_length, TASK_IDS: 1},
            seed=_SEED,
            async_compute_metrics=False,
        )
        datasets = self._evaluator.cached_task_datasets
        if not int(datasets[task].cardinality().numpy()):
            raise UserError(f"task {task!r} has no example in split {split!r}; leave it out")

    def __call__(self, predictor: Predictor) -> dict[str, float]:
        """The task's metrics, by name."""
        return self._metrics(model_functions(predictor, lambda count: None))

    @functools.cached_property
    def metric_names(self) -> tuple[str, ...] | None:
        """The names of the metrics, found by scoring the targets themselves in place of predictions.

        None if the task's metrics cannot be computed from the targets and scores of 0.
        """
        try:
            return tuple(self._metrics(TARGETS_THEMSELVES))
        except Exception:  # A metric is a user's function and may raise any error.
            return None

    def _metrics(self, functions: dict[Any, Any]) -> dict[str, float]:
        metrics, _ = self._evaluator.evaluate(compute_metrics=True, model_fns=functions)
        return with_mean(metrics.result())[self._task]


def check_scorable(task: str, split: str) -> None:
    """Raise a UserError if a task has no such split or no metric, without reading its examples."""
    found = routed(task, TaskTable.of(task)).tasks
    if len(found) != 1:
        raise UserError(f"{task!r} is a mixture, and a sweep adapts to tasks one by one; name its tasks")
    if split not in found[0].splits:
        raise UserError(f"task {task!r} has no split {split!r}; it has {', '.join(sorted(found[0].splits))}")
    if not found[0].metric_objs:
        raise UserError(f"task {task!r} has no metric; register it with metric_fns")
