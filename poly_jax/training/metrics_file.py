"""The file of JSON lines with the metrics of a run."""

import dataclasses

from etils import epath

from poly_jax.files.json_fields import Fields
from poly_jax.files.json_file import parse_json
from poly_jax.files.text_file import read_text
from poly_jax.files.whole_file import write_whole

FILE = "metrics.jsonl"

_ADVICE = "move it away: the run then continues without its earlier metrics"
_MAX_BYTES = 1 << 30


@dataclasses.dataclass(frozen=True)
class LastReport:
    """The last report of a run.

    Attributes:
      step: number of the step.
      loss: mean loss of the steps since the report before.
      steps_per_second: speed since the report before; 0 where it is not known.
    """

    step: int
    loss: float
    steps_per_second: float


def last_report(run: epath.Path) -> LastReport | None:
    """Read the newest report of a run from its `metrics.jsonl`; None where there is none.

    Raises:
      UserError: the file holds something other than metrics.
    """
    path = run / FILE
    for number, line in reversed(_lines(_text(path))):
        fields = _fields(path, number, line)
        if "loss" in fields:
            speed = fields.take("steps_per_second", float, default=0.0)
            return LastReport(fields.take("step", int), fields.take("loss", float), speed)
    return None


def is_evaluated(path: epath.Path, step: int) -> bool:
    """Whether the file holds the metrics of an evaluation after a step.

    Raises:
      UserError: the file holds something other than metrics.
    """
    for number, line in _lines(_text(path)):
        fields = _fields(path, number, line)
        if any(name.startswith("eval/") for name in fields) and fields.take("step", int) == step:
            return True
    return False


def forget_after(path: epath.Path, step: int) -> None:
    """Delete the lines of later steps, and half a line at the end of the file.

    Raises:
      UserError: the file holds something other than metrics.
    """
    text = _text(path)
    kept = "".join(
        f"{line}\n" for number, line in _lines(text) if _fields(path, number, line).take("step", int) <= step
    )
    if kept != text:
        write_whole(path, kept)


def _text(path: epath.Path) -> str:
    return read_text(path, _MAX_BYTES, _ADVICE) if path.exists() else ""


def _lines(text: str) -> list[tuple[int, str]]:
    """The complete lines and their numbers, from 1."""
    # The last piece is empty, or half a line from a run that was killed while it wrote.
    *lines, _ = text.split("\n")
    return list(enumerate(lines, 1))


def _fields(path: epath.Path, number: int, line: str) -> Fields:
    place = f"{path}, line {number}"
    return Fields(parse_json(line, place, allow_nan=True, advice=_ADVICE), place, _ADVICE)
