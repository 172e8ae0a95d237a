"""Texts without a data set: the lines or JSON lines that a user wants predictions for, and the answers."""

import json
import sys
from collections.abc import Sequence
from typing import Any

from etils import epath

from poly_jax.errors import UserError
from poly_jax.files.whole_file import check_writable, write_whole

STANDARD = "-"
_KEYS = ("inputs", "input")
_ADDED = ("prediction", "score")

Record = dict[str, Any]


def read_records(path: str) -> list[Record]:
    """What to predict for, an object a line.

    Args:
      path: `.jsonl` with the text under "inputs" or "input"; any other file, or "-" for standard input, has a
        text per line, which becomes `{"inputs": text}`.

    Raises:
      UserError: nothing there, or a line is no object with a text.
    """
    if path == STANDARD:
        text = sys.stdin.read()
    else:
        try:
            text = epath.Path(path).read_text()
        except UnicodeDecodeError as error:
            raise UserError(f"{path} is not UTF-8 text: {error}") from error
        except OSError as error:
            raise UserError(f"{path} cannot be read: {error.strerror or error}") from error
    if not text.strip():
        raise UserError(f"{'standard input' if path == STANDARD else path} is empty: nothing to predict for")
    # Not splitlines: that would also cut at the rarer line ends that a text may hold.
    lines = text.removesuffix("\n").split("\n")
    if path.endswith(".jsonl"):
        return [_parse(line, f"{path}, line {n}") for n, line in enumerate(lines, 1) if line.strip()]
    return [{"inputs": line} for line in lines]


def text_of(record: Record) -> str:
    """The text that a record asks a prediction for."""
    return record[next(key for key in _KEYS if key in record)]


def check_output(path: str) -> None:
    """Raises a UserError where the answers could not be written."""
    if path != STANDARD:
        check_writable(path)


def write_answers(
    path: str, records: Sequence[Record], predictions: Sequence[str], scores: Sequence[float]
) -> None:
    """Writes an answer a line, all or nothing.

    Args:
      path: `.jsonl` for the records with "prediction" and "score"; any other file, and "-" for standard
        output, gets the predictions as lines, with spaces in place of the line breaks in them.
      records: as read.
      predictions: of each.
      scores: log-probability of each prediction.
    """
    if path.endswith(".jsonl"):
        answers = [
            json.dumps(record | dict(zip(_ADDED, answer, strict=True)), ensure_ascii=False)
            for record, *answer in zip(records, predictions, scores, strict=True)
        ]
    else:
        answers = [" ".join(prediction.splitlines()) for prediction in predictions]
    text = "".join(f"{answer}\n" for answer in answers)
    if path == STANDARD:
        sys.stdout.write(text)
    else:
        write_whole(path, text)


def _parse(line: str, place: str) -> Record:
    try:
        record = json.loads(line)
    except json.JSONDecodeError as error:
        raise UserError(f"{place}: not JSON ({error.msg} at column {error.colno})") from None
    if not isinstance(record, dict) or not any(key in record for key in _KEYS):
        raise UserError(f'{place}: needs an object with the text under "inputs" or "input"')
    if not isinstance(text_of(record), str):
        raise UserError(f"{place}: the text to predict for is {text_of(record)!r}, which is no text")
    return record
