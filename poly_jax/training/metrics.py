"""Writes the scalars of a run to TensorBoard and to a file of JSON lines, through clu's writer interface."""

import json
from collections.abc import Mapping
from typing import Any

import jax
from clu import metric_writers
from etils import epath

from poly_jax.files.json_fields import Fields
from poly_jax.files.json_file import parse_json
from poly_jax.files.text_file import read_text
from poly_jax.files.whole_file import write_whole

_ADVICE = "move it away: the run then continues without its earlier metrics"
_MAX_BYTES = 1 << 30


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
    _forget_after(folder / "metrics.jsonl", step)
    return metric_writers.AsyncMultiWriter(
        [metric_writers.SummaryWriter(str(folder)), JsonLinesWriter(folder / "metrics.jsonl")]
    )


def last_report(run: epath.Path) -> dict[str, Any] | None:
    """Return the newest line of a run's `metrics.jsonl` that has a loss; None where there is none.

    Raises:
      UserError: the file holds something other than metrics.
    """
    path = run / "metrics.jsonl"
    text = read_text(path, _MAX_BYTES, _ADVICE) if path.exists() else ""
    *lines, _ = text.split("\n")
    for number, line in reversed(list(enumerate(lines, 1))):
        values = parse_json(line, f"{path}, line {number}", allow_nan=True, advice=_ADVICE)
        if "loss" in values:
            return values
    return None


def _forget_after(path: epath.Path, step: int) -> None:
    text = read_text(path, _MAX_BYTES, _ADVICE) if path.exists() else ""
    # The last piece is empty, or half a line from a run that was killed while it wrote.
    *lines, _ = text.split("\n")
    steps = (_step_of(line, f"{path}, line {number}") for number, line in enumerate(lines, 1))
    kept = "".join(f"{line}\n" for line, known in zip(lines, steps, strict=True) if known <= step)
    if kept != text:
        write_whole(path, kept)


def _step_of(line: str, place: str) -> int:
    return Fields(parse_json(line, place, allow_nan=True, advice=_ADVICE), place, _ADVICE).take("step", int)
