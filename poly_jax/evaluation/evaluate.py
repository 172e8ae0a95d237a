"""`poly-jax eval`: evaluates a run with its tasks' own metrics, through seqio's Evaluator."""

import dataclasses
import sys
import time
from typing import Any

import jax
from etils import epath
from rich import progress as bars
from rich.console import Console
from rich.text import Text

from poly_jax.data.feature_converter import RoutedEncDecFeatureConverter
from poly_jax.data.quiet import seqio, tf
from poly_jax.data.routed import TASK_IDS, RoutedMixture, routed
from poly_jax.data.task_table import TaskTable
from poly_jax.data.user_code import own_errors, reading_error
from poly_jax.errors import UserError
from poly_jax.evaluation.model_functions import model_functions
from poly_jax.evaluation.predict import Predictor
from poly_jax.evaluation.report import (
    PredictionFiles,
    Results,
    as_json,
    not_finite,
    show,
    summarised,
    with_mean,
)
from poly_jax.evaluation.text_encoding import say_if_endless
from poly_jax.experiment import Experiment
from poly_jax.files.whole_file import write_whole
from poly_jax.reporting.output_folder import check_output_folder
from poly_jax.training.checkpoints import read_table, step_folder
from poly_jax.training.mesh import Partitioning, check_batch_size
from poly_jax.training.restore import restore
from poly_jax.training.vocabulary_room import check_vocabularies
from poly_jax.transfer.zero_shot import averaged
from poly_jax.weights.tree import listing

METRICS = "metrics.json"
PREDICTIONS = "predictions"

# The data is not shuffled; the seed fixes the random numbers of a task's own preprocessors.
_SEED = 0


def evaluate(
    run: str,
    experiment: Experiment,
    mixture: str | None = None,
    split: str = "test",
    zero_shot: bool = False,
    batch_size: int = 32,
    output_dir: str | None = None,
    partitioning: Partitioning = Partitioning(),
) -> Results:
    """Evaluate a run on a mixture's tasks with their own metrics.

    The results are written to `metrics.json` and `predictions/<task>.jsonl` (see `PredictionFiles`), and
    printed as a table.

    Args:
      run: folder of the run, or one of its checkpoints.
      experiment: the run's experiment.
      mixture: name of a registered seqio mixture or task; None for the run's own mixture.
      split: name of the split to evaluate on; tasks without this split are left out.
      zero_shot: whether to use the average of the run's skills for every task, including unknown tasks.
      batch_size: number of examples in a batch, over all devices.
      output_dir: folder of the results; None for `eval/<mixture>-<split>` in the run's folder, with the
        suffix `-zero_shot` in a zero-shot evaluation.
      partitioning: shape of the device mesh.

    Returns:
      The metrics by task and, under "mean", their means over tasks.

    Raises:
      UserError: the mixture is unknown or has tasks that the run does not know, or there is nothing to
        evaluate because the split, the examples or the metrics are missing.
    """
    mesh = partitioning.mesh()
    check_batch_size(batch_size, mesh)
    experiment.data.register_tasks()
    step = step_folder(run)
    name = mixture or experiment.data.mixture
    table = TaskTable.of(name) if zero_shot else _table(experiment, run, name)
    check_vocabularies(name, experiment.model)
    view = routed(name, table)
    _check_tasks(view, name, split)
    # The checks above need neither data nor a model, so a mistake shows at once.
    folder = (
        epath.Path(output_dir) if output_dir else step.parent.parent / "eval" / _label(name, split, zero_shot)
    )
    check_output_folder(folder, "eval")
    writes = jax.process_index() == 0
    lengths = experiment.data.sequence_length
    evaluated = [task for task in view.tasks if split in task.splits and task.metric_objs]
    try:
        evaluator = seqio.Evaluator(
            view.name,
            RoutedEncDecFeatureConverter(choices=True),
            eval_split=split,
            sequence_length={**lengths, TASK_IDS: 1},
            seed=_SEED,
            logger_cls=[PredictionFiles] if writes else [],
            log_dir=str(folder / PREDICTIONS),
            async_compute_metrics=False,
        )
    except tf.errors.OpError as error:
        raise reading_error([task.unrouted for task in evaluated], split, lengths, error) from error
    if writes:
        for task in evaluated:
            say_if_endless(task.unrouted, lengths)
    examples = _count_examples(evaluator, name, split)
    restored = restore(experiment, run, mesh)
    restored = averaged(restored, table) if zero_shot else dataclasses.replace(restored, table=table)
    predictor = Predictor(restored, experiment.decoding, mesh, batch_size)
    began = time.perf_counter()
    metrics = _run(evaluator, predictor, examples)
    seconds = time.perf_counter() - began
    results, notices = summarised(with_mean(metrics), [task.unrouted for task in evaluated], metrics)
    if writes:
        folder.mkdir(parents=True, exist_ok=True)
        write_whole(folder / METRICS, as_json(results, metrics))
        show(results, f"{name}, {split}{', zero-shot' if zero_shot else ''}")
        broken = not_finite(results)
        if broken:
            notices.append(f"not finite, and null in {METRICS}: {listing(broken)}")
        for notice in notices:
            print(notice, file=sys.stderr)
        total = sum(examples.values())
        print(
            f"{total:,} examples in {seconds:.1f} s ({total / seconds:.1f} examples/s); results in {folder}",
            file=sys.stderr,
        )
    return results


def _label(name: str, split: str, zero_shot: bool) -> str:
    return f"{name}-{split}" + ("-zero_shot" if zero_shot else "")


def _table(experiment: Experiment, run: str, name: str) -> TaskTable:
    """Return the run's task table, after checking that it has the mixture's tasks."""
    wanted = TaskTable.of(name)
    if experiment.adapters is None:
        # A bare T5 ignores task ids and can be evaluated on any task.
        return wanted
    table = read_table(step_folder(run))
    unknown = [task for task in wanted.names if task not in table.names]
    if unknown:
        raise UserError(
            f"{run} does not know {len(unknown)} of the {len(wanted)} tasks of {name!r} ({listing(unknown)});"
            f" adapt it to a new task first (poly-jax adapt --run={run} --task={unknown[0]} --output_dir=DIR)"
            ", or evaluate with --zero_shot"
        )
    return table


def _check_tasks(view: RoutedMixture, name: str, split: str) -> None:
    """Print which tasks are left out, and raise a UserError where all are."""
    with_split = [task for task in view.tasks if split in task.splits]
    without_metrics = [task.name for task in with_split if not task.metric_objs]
    if not with_split:
        splits = ", ".join(sorted(view.splits))
        raise UserError(f"no task of {name!r} has a split {split!r}; choose one with --split: {splits}")
    if len(without_metrics) == len(with_split):
        raise UserError(
            f"no task of {name!r} with a split {split!r} has a metric; register it with metric_fns"
        )
    without_split = [task.name for task in view.tasks if split not in task.splits]
    for left_out, lack in ((without_split, f"split {split!r}"), (without_metrics, "metric")):
        if left_out and jax.process_index() == 0:
            print(f"left out, without a {lack}: {listing(left_out)}", file=sys.stderr)


def _count_examples(evaluator: seqio.Evaluator, name: str, split: str) -> dict[str, int]:
    counts = {
        task: int(dataset.cardinality().numpy()) for task, dataset in evaluator.cached_task_datasets.items()
    }
    empty = [task for task, count in counts.items() if not count]
    if empty:
        raise UserError(
            f"{listing(empty)} without an example in split {split!r}: leave it out of mixture {name!r}"
        )
    return counts


class _Speed(bars.ProgressColumn):
    def render(self, task: bars.Task) -> Text:
        """Render the number of examples per second, once it is known."""
        return Text(f"{task.speed:.1f} examples/s" if task.speed else "")


def _run(evaluator: seqio.Evaluator, predictor: Predictor, examples: dict[str, int]) -> dict[str, Any]:
    kinds = {
        task.name: {metric.model_output_type for metric in task.metric_objs} for task in evaluator.eval_tasks
    }
    work = sum(examples[task] * len(needed) for task, needed in kinds.items())
    columns = (
        bars.TextColumn("{task.description}"),
        bars.BarColumn(),
        bars.MofNCompleteColumn(),
        _Speed(),
        bars.TimeRemainingColumn(),
    )
    console = Console(stderr=True)
    with bars.Progress(*columns, console=console, disable=jax.process_index() != 0) as progress:
        bar = progress.add_task("evaluating", total=work)
        functions = model_functions(predictor, lambda count: progress.advance(bar, count))
        with own_errors():
            metrics, _ = evaluator.evaluate(compute_metrics=True, model_fns=functions)
    return metrics.result()
