"""Writes the scalars of a run to TensorBoard and to a file of JSON lines, through clu's writer interface."""

import json
from collections.abc import Mapping
from typing import Any

import jax
from clu import metric_writers
from etils import epath

from poly_jax.training.metrics_file import FILE, forget_after


class JsonLinesWriter(metric_writers.MetricWriter):
    """A writer that appends one JSON object of scalars or texts per call, as `{"step": 100, "loss": 1.5}`."""

    def __init__(self, path: epath.Path):
        self._file = path.open("a")

    def write_scalars(self, step: int, scalars: Mapping[str, Any]) -> None:
        """Appends a line."""
        values = {name: float(value) for name, value in scalars.items()}
        self._file.write(json.dumps({"step": step, **values}) + "\n")

    def write_texts(self, step: int, texts: Mapping[str, str]) -> None:
        """Appends a line."""
        self._file.write(json.dumps({"step": step, **texts}) + "\n")

    def write_hparams(self, hparams: Mapping[str, Any]) -> None:
        """Do nothing, because the run's config.gin has the hyperparameters."""

    def _unsupported(self, *args, **kwargs) -> None:
        raise TypeError("JSON lines hold scalars and texts; write this kind of summary to TensorBoard alone")

    write_summaries = write_images = write_videos = _unsupported
    write_audios = write_histograms = write_pointcloud = _unsupported

    def flush(self) -> None:
        """Make the written lines visible to readers."""
        self._file.flush()

    def close(self) -> None:
        """Closes the file."""
        self._file.close()


def scalar_writer(folder: epath.Path, step: int) -> metric_writers.MetricWriter:
    """Make a writer of the scalars after a step, which writes TensorBoard events and `metrics.jsonl`.

    Only the first process of a run writes. Lines of later steps come from a run that was stopped after its
    last checkpoint. They are deleted, because the run takes these steps again.

    Raises:
      UserError: `metrics.jsonl` holds something other than metrics.
    """
    if jax.process_index():
        return metric_writers.MultiWriter([])
    folder.mkdir(parents=True, exist_ok=True)
    forget_after(folder / FILE, step)
    return metric_writers.AsyncMultiWriter(
        [metric_writers.SummaryWriter(str(folder)), JsonLinesWriter(folder / FILE)]
    )
