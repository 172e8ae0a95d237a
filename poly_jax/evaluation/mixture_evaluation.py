"""Evaluates any number of models on the tasks of a mixture, whose examples are read once."""

import dataclasses
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

import jax
from etils import epath
from rich import progress as bars
from rich.console import Console
from rich.text import Text

from poly_jax.data.feature_converter import RoutedEncDecFeatureConverter
from poly_jax.data.quiet import seqio, tf
from poly_jax.data.routed import TASK_IDS, RoutedTask, routed
from poly_jax.data.task_table import TaskTable
from poly_jax.data.user_code import own_errors, reading_error
from poly_jax.errors import UserError
from poly_jax.evaluation.model_functions import model_functions
from poly_jax.evaluation.predict import Predictor
from poly_jax.evaluation.report import PredictionFiles, Results, summarised, with_mean
from poly_jax.evaluation.targets_themselves import TARGETS_THEMSELVES
from poly_jax.evaluation.text_encoding import say_if_endless
from poly_jax.weights.tree import listing

# The data is not shuffled; the seed fixes the random numbers of a task's own preprocessors.
_SEED = 0


@dataclasses.dataclass(frozen=True)
class Evaluated:
    """The results of one model.

    Attributes:
      results: the numbers of each task, their means over tasks, and the summaries of metrics over several
        tasks.
      metrics: everything that the metrics of each task returned.
      notices: messages about how to read the results.
      examples: number of examples of all tasks.
      seconds: time that the predictions and the metrics took.
    """

    results: Results
    metrics: Mapping[str, Mapping[str, Any]]
    notices: list[str]
    examples: int
    seconds: float


class MixtureEvaluation:
    """The tasks of a mixture that have a split and a metric, and their examples.

    Args:
      mixture: name of a registered seqio mixture or task.
      table: table of the task ids, which has all tasks of the mixture.
      split: name of the split.

    Raises:
      UserError: no task of the mixture has the split, or none of these has a metric.
    """

    def __init__(self, mixture: str, table: TaskTable, split: str) -> None:
        self._mixture, self._split = mixture, split
        self._view = routed(mixture, table)
        self._tasks = _evaluated_tasks(self._view.tasks, mixture, split)
        self._evaluator: seqio.Evaluator | None = None
        self._examples: dict[str, int] = {}

    def read(self, lengths: Mapping[str, int], predictions: epath.Path | None = None) -> None:
        """Read the examples.

        Args:
          lengths: number of tokens of `inputs` and of `targets`.
          predictions: folder that gets a file of predictions for each task; None for no files.

        Raises:
          UserError: the data of a task cannot be read, or a task has no example.
        """
        try:
            self._evaluator = seqio.Evaluator(
                self._view.name,
                RoutedEncDecFeatureConverter(choices=True),
                eval_split=self._split,
                sequence_length={**lengths, TASK_IDS: 1},
                seed=_SEED,
                logger_cls=[] if predictions is None else [PredictionFiles],
                log_dir=None if predictions is None else str(predictions),
                async_compute_metrics=False,
            )
        except tf.errors.OpError as error:
            tasks = [task.unrouted for task in self._tasks]
            raise reading_error(tasks, self._split, lengths, error) from error
        if jax.process_index() == 0:
            for task in self._tasks:
                say_if_endless(task.unrouted, lengths)
        self._examples = {
            task: int(dataset.cardinality().numpy())
            for task, dataset in self._evaluator.cached_task_datasets.items()
        }
        if empty := [task for task, count in self._examples.items() if not count]:
            raise UserError(
                f"split {self._split!r} has no example of {listing(empty)}; leave it out of mixture "
                f"{self._mixture!r}"
            )

    def __call__(
        self, predictor: Predictor, keep_bar: bool = True, after_batch: Callable[[], None] = lambda: None
    ) -> Evaluated:
        """Predict the examples that `read` has read, and compute their tasks' metrics.

        Args:
          predictor: a model with the task table of the evaluation.
          keep_bar: whether the progress bar stays on the terminal at the end.
          after_batch: called after every batch, on all hosts after the same one. An exception that it raises
            ends the evaluation.

        Raises:
          UserError: a metric fails, or the model's scores are not numbers.
        """
        assert self._evaluator is not None, "read() comes first"
        began = time.perf_counter()
        metrics = self._run(self._evaluator, predictor, keep_bar, after_batch)
        results, notices = summarised(with_mean(metrics), [task.unrouted for task in self._tasks], metrics)
        seconds = time.perf_counter() - began
        return Evaluated(results, metrics, notices, sum(self._examples.values()), seconds)

    def names(self) -> set[tuple[str, str]] | None:
        """The task and the name of every number that an evaluation returns, of means and summaries too.

        They are found by scoring the targets themselves in place of predictions, after `read`. None where the
        metrics cannot be computed from the targets and scores of 0.
        """
        assert self._evaluator is not None, "read() comes first"
        try:
            done, _ = self._evaluator.evaluate(compute_metrics=True, model_fns=TARGETS_THEMSELVES)
            metrics = done.result()
            results, _ = summarised(with_mean(metrics), [task.unrouted for task in self._tasks], metrics)
        except Exception:  # A metric is a user's function and may raise any error.
            return None
        return {(task, metric) for task, values in results.items() for metric in values}

    def _run(
        self,
        evaluator: seqio.Evaluator,
        predictor: Predictor,
        keep_bar: bool,
        after_batch: Callable[[], None],
    ) -> dict[str, Any]:
        kinds = {
            task.name: {metric.model_output_type for metric in task.metric_objs}
            for task in evaluator.eval_tasks
        }
        work = sum(self._examples[task] * len(needed) for task, needed in kinds.items())
        columns = (
            bars.TextColumn("{task.description}"),
            bars.BarColumn(),
            bars.MofNCompleteColumn(),
            _Speed(),
            bars.TimeRemainingColumn(),
        )
        console = Console(stderr=True)
        hidden = jax.process_index() != 0 or not (keep_bar or console.is_terminal)
        with bars.Progress(*columns, console=console, disable=hidden, transient=not keep_bar) as progress:
            bar = progress.add_task("evaluating", total=work)

            def advance(count: int) -> None:
                progress.advance(bar, count)
                after_batch()

            functions = model_functions(predictor, advance)
            with own_errors():
                metrics, _ = evaluator.evaluate(compute_metrics=True, model_fns=functions)
        return metrics.result()


def _evaluated_tasks(tasks: list[RoutedTask], name: str, split: str) -> list[RoutedTask]:
    """Return the tasks with a split and a metric; print which others are left out."""
    with_split = [task for task in tasks if split in task.splits]
    without_metrics = [task.name for task in with_split if not task.metric_objs]
    if not with_split:
        splits = ", ".join(sorted({each for task in tasks for each in task.splits}))
        raise UserError(f"no task of {name!r} has a split {split!r}; choose one of {splits}")
    if len(without_metrics) == len(with_split):
        raise UserError(
            f"no task of {name!r} with a split {split!r} has a metric; register it with metric_fns"
        )
    without_split = [task.name for task in tasks if split not in task.splits]
    for left_out, lack in ((without_split, f"split {split!r}"), (without_metrics, "metric")):
        if left_out and jax.process_index() == 0:
            print(f"left out, without a {lack}: {listing(left_out)}", file=sys.stderr)
    return [task for task in with_split if task.metric_objs]


class _Speed(bars.ProgressColumn):
    def render(self, task: bars.Task) -> Text:
        """Render the number of examples per second, once it is known."""
        return Text(f"{task.speed:.1f} examples/s" if task.speed else "")
