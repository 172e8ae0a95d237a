"""The results of an evaluation as files and as a table."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from etils import epath
from rich.console import Console
from rich.table import Table

from poly_jax.data.quiet import seqio, tf
from poly_jax.files.whole_file import write_whole

Results = dict[str, dict[str, float]]
MEAN = "mean"


def with_mean(metrics: Mapping[str, Mapping[str, Any]]) -> Results:
    """The numbers among the tasks' metrics; under "mean", each metric's mean over the tasks that have it."""
    results: Results = {}
    for task in sorted(metrics):
        values = {
            name: value.value if isinstance(value, seqio.metrics.Scalar) else value
            for name, value in metrics[task].items()
        }
        results[task] = {
            name: float(value)
            for name, value in values.items()
            if not isinstance(value, seqio.metrics.MetricValue)
        }
    names = dict.fromkeys(name for task in results.values() for name in task)
    results[MEAN] = {
        name: float(np.mean([task[name] for task in results.values() if name in task])) for name in names
    }
    return results


def table(results: Results, title: str) -> Table:
    """Task by metric, the mean last."""
    shown = Table(title=title)
    shown.add_column("task", no_wrap=True)
    for name in results[MEAN]:
        shown.add_column(name, justify="right", no_wrap=True)
    for task, values in results.items():
        if task == MEAN:
            shown.add_section()
        cells = [f"{values[name]:.2f}" if name in values else "" for name in results[MEAN]]
        shown.add_row(task, *cells)
    return shown


def show(results: Results, title: str) -> None:
    """Prints the table; to a file or pipe in its full width, whatever the terminal's is."""
    console, shown = Console(), table(results, title)
    if not console.is_terminal:
        console.width = max(console.width, Console(width=10_000).measure(shown).maximum)
    console.print(shown)


class PredictionFiles(seqio.Logger):
    """Writes a task's examples to `<output_dir>/<task>.jsonl`, an object an example, in the data's order.

    `input`: its text. `target` and `prediction`: as the metrics see them, postprocessed. `output`: the
    decoded text, where postprocessing changed it. Where metrics ask for them, `score`: the target's
    log-probability, or those of the answer choices, and `prediction_score`: that of the prediction.
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
        """Writes the file of one task; `seqio.Logger` says what the arguments are."""
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
            lines.append(json.dumps(record, cls=seqio.TensorAndNumpyEncoder, ensure_ascii=False) + "\n")
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
