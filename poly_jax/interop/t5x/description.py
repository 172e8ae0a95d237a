"""The task table of a t5x run: written beside its checkpoints, and read there for evaluation."""

from collections.abc import Sequence

import jax
from clu import metric_writers
from t5x import gin_utils

from poly_jax import configuration
from poly_jax.data.task_table import TaskTable
from poly_jax.interop.t5x import description_files as t5x_run


def summarize(
    model_dir: str, summary_writer: metric_writers.MetricWriter | None, step: int, table: TaskTable
) -> None:
    """Do what t5x's `summarize_gin_config` does, and write what other programs need to use the checkpoints.

    Args:
      model_dir: folder of the run.
      summary_writer: writer that receives the configuration as text.
      step: step of the summary.
      table: task table of the mixture that is trained on.
    """
    gin_utils.summarize_gin_config(model_dir, summary_writer, step)
    if jax.process_index() == 0:
        t5x_run.write_description(model_dir, configuration.current().experiment(), table)


def table_beside(checkpoint: str | Sequence[str]) -> TaskTable:
    """Read the task table of a checkpoint, or of the first of several checkpoints.

    Raises:
      UserError: there is no table beside the checkpoint.
    """
    return t5x_run.read_described_tasks(checkpoint if isinstance(checkpoint, str) else checkpoint[0])
