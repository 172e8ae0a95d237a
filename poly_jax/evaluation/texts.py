"""Reads the lines or JSON lines that a user wants predictions for, and writes the answers."""

import json
import os
import sys
from collections.abc import Sequence
from typing import Any

from poly_jax.errors import UserError
from poly_jax.files.json_fields import shown
from poly_jax.files.json_file import parse_json
from poly_jax.files.text_file import read_text
from poly_jax.files.whole_file import check_writable, write_whole
from poly_jax.reporting.output_folder import check_output_file

STANDARD = "-"
_KEYS = ("inputs", "input")
_ADDED = ("prediction", "score")
# All texts and their tokens are held in memory.
_MAX_BYTES = 1 << 30

Record = dict[str, Any]


def read_records(path: str) -> list[Record]:
    """Read the texts to predict for, one object per line.

    A byte order mark and the carriage returns of Windows' line ends are dropped.

    Args:
      path: a `.jsonl` file has the text under "inputs" or "input"; any other file, or "-" for standard input,
        has one text per line, which becomes `{"inputs": text}`.

    Raises:
      UserError: the file cannot be read, is empty, or has a line that is not an object with a text.
    """
    name = "standard input" if path == STANDARD else path
    if path == STANDARD:
        try:
            text = sys.stdin.read().removeprefix("\ufeff")
        except UnicodeDecodeError as error:
            raise UserError(f"{name} is not UTF-8 text: {error}") from None
    else:
        text = read_text(path, _MAX_BYTES, "give a file of texts in UTF-8")
    text = text.replace("\r\n", "\n")
    if not text.strip():
        raise UserError(f"{name} is empty: there is nothing to predict for")
    # splitlines would also cut at rarer line ends, which a text may contain.
    lines = text.removesuffix("\n").split("\n")
    if _is_json(path):
        return [_parse(line, f"{path}, line {n}") for n, line in enumerate(lines, 1) if line.strip()]
    for number, line in enumerate(lines, 1):
        if not line.isascii() and any("\ud800" <= letter <= "\udfff" for letter in line):
            raise UserError(f"{name}, line {number} is not UTF-8 text")
    return [{"inputs": line} for line in lines]


def text_of(record: Record) -> str:
    """Return the text that a record asks a prediction for."""
    return record[next(key for key in _KEYS if key in record)]


def check_output(path: str, source: str) -> None:
    """Raise a UserError where the answers could not be written, or would replace what they need.

    Args:
      path: the file for the answers.
      source: the file of the texts.
    """
    if path == STANDARD:
        return
    check_writable(path)
    if source != STANDARD and os.path.realpath(path) == os.path.realpath(source):
        raise UserError(f"--output={path} is the file of the texts; give another file")
    check_output_file(path)


def write_answers(
    path: str, records: Sequence[Record], predictions: Sequence[str], scores: Sequence[float]
) -> None:
    """Write one answer per line; the file is written completely or not at all.

    Args:
      path: a `.jsonl` file gets the records with "prediction" and "score"; any other file, and "-" for
        standard output, gets the predictions as lines, with spaces in place of the line breaks in them.
      records: the records as they were read.
      predictions: the prediction for each record.
      scores: the log-probability of each prediction.
    """
    if _is_json(path):
        answers = [
            json.dumps(record | dict(zip(_ADDED, answer, strict=True)), ensure_ascii=False, allow_nan=False)
            for record, *answer in zip(records, predictions, scores, strict=True)
        ]
    else:
        answers = [" ".join(prediction.splitlines()) for prediction in predictions]
    text = "".join(f"{answer}\n" for answer in answers)
    if path == STANDARD:
        sys.stdout.write(text)
    else:
        write_whole(path, text)


def _is_json(path: str) -> bool:
    return path.lower().endswith(".jsonl")


def _parse(line: str, place: str) -> Record:
    record = parse_json(line, place, object, advice='write an object with the text under "inputs"')
    if not isinstance(record, dict) or not any(key in record for key in _KEYS):
        raise UserError(f'{place}: needs an object with the text under "inputs" or "input"')
    if not isinstance(text_of(record), str):
        raise UserError(f"{place}: the text to predict for is {shown(text_of(record))}, which is not a text")
    return record
