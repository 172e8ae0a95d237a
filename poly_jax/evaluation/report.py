"""Reports the results of an evaluation as files and as a table."""

import json
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from etils import epath
from rich.table import Table

from poly_jax.data.quiet import seqio, tf
from poly_jax.errors import UserError
from poly_jax.files.whole_file import write_whole
from poly_jax.reporting.table import print_whole

Results = dict[str, dict[str, float]]
MEAN = "mean"
# Python writes these names, which are not JSON.
_NOT_FINITE = re.compile(r"NaN|Infinity")


def with_mean(metrics: Mapping[str, Mapping[str, Any]]) -> Results:
    """Return the numbers among the tasks' metrics and, under "mean", each metric's mean over its tasks.

    Raises:
      UserError: a metric is neither a number nor one of seqio's other values.
    """
    results: Results = {}
    for task in sorted(metrics):
        values = {
            name: value.value if isinstance(value, seqio.metrics.Scalar) else value
            for name, value in metrics[task].items()
        }
        results[task] = {
            name: _number(value, name, task)
            for name, value in values.items()
            if not isinstance(value, seqio.metrics.MetricValue)
        }
    names = dict.fromkeys(name for task in results.values() for name in task)
    results[MEAN] = {
        name: float(np.mean([task[name] for task in results.values() if name in task])) for name in names
    }
    return results


def _number(value: Any, name: str, task: str) -> float:
    try:
        return float(value)
    except (TypeError, ValueError):
        raise UserError(
            f"metric {name!r} of task {task!r} is {value!r:.80}, which is not a number; change its metric"
        ) from None


def summarised(
    results: Results, tasks: Sequence[seqio.Task], metrics: Mapping[str, Mapping[str, Any]]
) -> tuple[Results, list[str]]:
    """Add the results of metrics about several tasks at once.

    A metric function may have a method `summary`. Its arguments are the tasks that share the metric, by name,
    and their metrics. It returns results, under names of its own, and notices.

    Args:
      results: numbers of each task and their means.
      tasks: the tasks that were evaluated.
      metrics: the metrics of each task.

    Returns:
      The results with the summaries after the mean, and the notices.
    """
    sharing: dict[Any, dict[str, seqio.Task]] = {}
    for task in tasks:
        for metric in task.metric_fns:
            if hasattr(metric, "summary"):
                sharing.setdefault(metric, {})[task.name] = task
    added, notices = dict(results), []
    for metric, of in sharing.items():
        groups, said = metric.summary(of, {name: metrics[name] for name in of})
        added |= groups
        notices += said
    return added, notices


def as_json(results: Results, metrics: Mapping[str, Mapping[str, Any]]) -> str:
    """Format the results as JSON, with the texts of tasks; a number that is not finite becomes null."""
    content: dict[str, dict[str, Any]] = {
        name: {metric: value if math.isfinite(value) else None for metric, value in values.items()}
        for name, values in results.items()
    }
    for task, values in metrics.items():
        for name, value in values.items():
            if isinstance(value, seqio.metrics.Text):
                content[task][name] = value.textdata
    return json.dumps(content, indent=1, allow_nan=False) + "\n"


def not_finite(results: Results) -> list[str]:
    """List the metrics that are not finite numbers, as `task: metric`."""
    return [
        f"{task}: {name}"
        for task, values in results.items()
        for name, value in values.items()
        if not math.isfinite(value)
    ]


def table(results: Results, title: str) -> Table:
    """Make a table of tasks by metrics; the mean and the summaries come last."""
    shown = Table(title=title)
    shown.add_column("task", no_wrap=True)
    for name in results[MEAN]:
        shown.add_column(name, justify="right", no_wrap=True)
    # Where there are also means over instances, the row says that it is a mean over tasks.
    mean = MEAN if next(reversed(results)) == MEAN else "mean over tasks"
    for task, values in results.items():
        if task == MEAN:
            shown.add_section()
        cells = [f"{values[name]:.2f}" if name in values else "" for name in results[MEAN]]
        shown.add_row(mean if task == MEAN else task, *cells)
    return shown


def show(results: Results, title: str) -> None:
    """Print the table of results."""
    print_whole(table(results, title))


class PredictionFiles(seqio.Logger):
    """Writes a task's examples to `<output_dir>/<task>.jsonl`, one object per example, in the data's order.

    `input` is the text of the example. `target` and `prediction` are the values that the metrics get, after
    postprocessing. `output` is the decoded text, where postprocessing changed it. Where metrics need them,
    `score` is the log-probability of the target or of each answer choice, and `prediction_score` is the
    log-probability of the prediction. A number that is not finite, such as the score of an absent choice,
    becomes null.
    """

    def __call__(
        self,
        task_name: str,
        step: int | None,
        metrics: Mapping[str, Any],
        dataset: tf.data.Dataset | None,
        inferences: Mapping[str, Sequence[Any]] | None,
        targets: Sequence[Any] | None,
    ) -> None:
        """Write the file of one task; `seqio.Logger` documents the arguments."""
        del step, metrics
        columns: dict[str, Sequence[Any]] = {"input": _inputs(task_name, dataset)}
        if targets is not None:
            columns["target"] = targets
        for name in ("prediction", "output", "score"):
            if inferences and name in inferences:
                columns[name] = inferences[name]
        if inferences and "aux_value" in inferences:
            columns["prediction_score"] = dict(inferences["aux_value"])["scores"]
        lines = []
        for values in zip(*columns.values(), strict=True):
            record = dict(zip(columns, values, strict=True))
            if record.get("output") == record.get("prediction"):
                record.pop("output", None)
            text = json.dumps(record, cls=seqio.TensorAndNumpyEncoder, ensure_ascii=False)
            if _NOT_FINITE.search(text):
                plain = json.loads(text, parse_constant=lambda token: None)
                text = json.dumps(plain, ensure_ascii=False, allow_nan=False)
            lines.append(text + "\n")
        folder = epath.Path(self.output_dir)
        folder.mkdir(parents=True, exist_ok=True)
        write_whole(folder / f"{task_name}.jsonl", "".join(lines))


def _inputs(task_name: str, dataset: tf.data.Dataset) -> list[str]:
    vocabulary = seqio.TaskRegistry.get(task_name).output_features["inputs"].vocabulary
    texts = []
    for example in dataset.as_numpy_iterator():
        text = example.get("inputs_pretokenized")
        texts.append(vocabulary.decode(example["inputs"].tolist()) if text is None else text.decode())
    return texts
