"""Where a run's scalars go: TensorBoard and a file of JSON lines, through clu's writer interface."""

import json
from collections.abc import Mapping
from typing import Any

import jax
from clu import metric_writers
from etils import epath

from poly_jax.files.whole_file import write_whole


class JsonLinesWriter(metric_writers.MetricWriter):
    """Appends one JSON object per call: `{"step": 100, "loss": 1.5, ...}`. Scalars and texts only."""

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
        """Nothing: the run's config.gin has them."""

    def _unsupported(self, *args, **kwargs) -> None:
        raise TypeError("JSON lines hold scalars and texts; write this kind of summary to TensorBoard alone")

    write_summaries = write_images = write_videos = _unsupported
    write_audios = write_histograms = write_pointcloud = _unsupported

    def flush(self) -> None:
        """Makes what was written visible to readers."""
        self._file.flush()

    def close(self) -> None:
        """Closes the file."""
        self._file.close()


def scalar_writer(folder: epath.Path, step: int) -> metric_writers.MetricWriter:
    """A writer of scalars to `folder` after a step: TensorBoard events and `metrics.jsonl`.

    Only the first process of a run writes. Lines of later steps are from a run that was stopped after its
    last checkpoint, and go: those steps are run again.
    """
    if jax.process_index():
        return metric_writers.MultiWriter([])
    folder.mkdir(parents=True, exist_ok=True)
    _forget_after(folder / "metrics.jsonl", step)
    return metric_writers.AsyncMultiWriter(
        [metric_writers.SummaryWriter(str(folder)), JsonLinesWriter(folder / "metrics.jsonl")]
    )


def _forget_after(path: epath.Path, step: int) -> None:
    lines = path.read_text().splitlines(keepends=True) if path.exists() else []
    kept = [line for line in lines if _is_until(line, step)]
    if len(kept) < len(lines):
        write_whole(path, "".join(kept))


def _is_until(line: str, step: int) -> bool:
    try:
        return json.loads(line)["step"] <= step
    except ValueError:  # The run was killed while it wrote this line.
        return False
