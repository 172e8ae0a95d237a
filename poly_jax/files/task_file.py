"""Text files with one value per task, keyed by task name: JSON objects and CSV lines."""

import csv
import json
from typing import Any


def json_pairs(text: str) -> list[tuple[str, Any]]:
    """Return the names and values of a JSON object, in its order; a repeated name is listed repeatedly.

    Raises:
      ValueError: the text is not JSON, or does not hold an object.
    """
    try:
        pairs = json.loads(text.removeprefix("\ufeff"), object_pairs_hook=list)
    except RecursionError:
        raise ValueError("it nests JSON deeper than any table of tasks") from None
    if not isinstance(pairs, list) or not all(isinstance(pair, tuple) for pair in pairs):
        raise ValueError("it does not hold an object with a value for every task")
    return pairs


def csv_pairs(text: str) -> list[tuple[str, list[str]]]:
    """Return the task's name and the other cells of every line, without the header and empty lines.

    Raises:
      csv.Error: the text is not CSV.
    """
    text = text.removeprefix("\ufeff")
    lines = [[cell.strip() for cell in line] for line in csv.reader(text.splitlines()) if line]
    return [(line[0], line[1:]) for line in lines[1:]]
