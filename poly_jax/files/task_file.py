"""Texts that say something of every task by its name: JSON objects and CSV lines."""

import csv
import json
from typing import Any


def json_pairs(text: str) -> list[tuple[str, Any]]:
    """Each task's name and what an object has for it; a name that is there twice is twice in the list.

    Raises:
      ValueError: it is no JSON, or no object.
    """
    pairs = json.loads(text, object_pairs_hook=list)
    if not isinstance(pairs, list) or not all(isinstance(pair, tuple) for pair in pairs):
        raise ValueError("it holds no object of tasks")
    return pairs


def csv_pairs(text: str) -> list[tuple[str, list[str]]]:
    """Each task's name and the other cells of its line, after a header; empty lines are left out.

    Raises:
      csv.Error: it is no CSV.
    """
    lines = [[cell.strip() for cell in line] for line in csv.reader(text.splitlines()) if line]
    return [(line[0], line[1:]) for line in lines[1:]]
