"""Reads a table of tasks by skills from JSON, CSV or npz."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from etils import epath

from poly_jax.counted import counted
from poly_jax.errors import UserError
from poly_jax.files.task_file import csv_pairs, json_pairs
from poly_jax.suggestion import close_names, did_you_mean

_SHOWN = 200
Table = tuple[tuple[float, ...], ...]


def read_weight_table(path: str, names: Sequence[str]) -> Table:
    """Read the rows of some tasks; the file may also have rows for other tasks.

    Args:
      path: a file of one of these kinds:
        `.json`: an object with a list of weights for every task;
        `.csv`: a header, then lines with a task's name and its weights;
        `.npz`: arrays `tasks` [tasks] of names and `weights` [tasks, skills].
      names: the tasks whose rows are wanted, in their order.

    Raises:
      UserError: the file cannot be read, lacks a task or has one twice, its rows are not equally long, a
        weight is negative or not a number, or all weights of a task are 0.
    """
    table = _read(path)
    if missing := [name for name in names if name not in table]:
        hint = did_you_mean(close_names(missing[0], table)) or "add a row"
        raise UserError(
            f"{path} has no row for {counted(len(missing), 'task')}, such as {missing[0]!r}; {hint}"
        )
    return tuple(table[name] for name in names)


def table_width(path: str) -> int:
    """Return the number of skills of a table; it raises the same errors as `read_weight_table`."""
    return len(next(iter(_read(path).values())))


def _read(path: str) -> dict[str, tuple[float, ...]]:
    readers = {".json": _json, ".csv": _csv, ".npz": _npz}
    place = epath.Path(path)
    if place.suffix not in readers:
        raise UserError(f"TableRouter.path is {path!r}; use a file ending in {', '.join(readers)}")
    try:
        table = readers[place.suffix](place)
    except FileNotFoundError:
        raise UserError(f"TableRouter.path is {path!r}, and there is no such file") from None
    # On broken files the parsers, above all the parser of npz, raise errors of many types.
    except Exception as e:
        reason = " ".join(str(e).split())[:_SHOWN] or type(e).__name__
        raise UserError(
            f"TableRouter.path is {path!r}, which is not a table of tasks by skills ({reason}); give one with"
            " a row of weights for each task"
        ) from None
    check_table(path, table)
    return table


def check_table(path: str, table: Mapping[str, tuple[float, ...]]) -> None:
    """Raise a UserError where the rows of a table from `path` are not weights of the same skills."""
    if not table:
        raise UserError(f"{path} has no task; give it a row for every task")
    first = next(iter(table))
    for name, row in table.items():
        if len(row) != len(table[first]) or not row:
            raise UserError(
                f"{path}: {name!r} has {counted(len(row), 'weight')}, and {first!r} has {len(table[first])};"
                " every task has one for every skill"
            )
        if not all(math.isfinite(weight) and weight >= 0 for weight in row) or not any(row):
            raise UserError(
                f"{path}: the weights of {name!r} are {list(row)}; they are at least 0, and one is above it"
            )


def _rows(pairs: Sequence[tuple[str, Sequence[Any]]]) -> dict[str, tuple[float, ...]]:
    table: dict[str, tuple[float, ...]] = {}
    for name, row in pairs:
        if name in table:
            raise ValueError(f"{name!r} is there twice")
        try:
            table[name] = tuple(float(weight) for weight in row)
        except (ValueError, TypeError, OverflowError):
            raise ValueError(f"the row of {name!r} is {row!r}, not a list of numbers") from None
    return table


def _json(place: epath.Path) -> dict[str, tuple[float, ...]]:
    return _rows(json_pairs(place.read_text()))


def _csv(place: epath.Path) -> dict[str, tuple[float, ...]]:
    return _rows(csv_pairs(place.read_text()))


def _npz(place: epath.Path) -> dict[str, tuple[float, ...]]:
    with place.open("rb") as file, np.load(file, allow_pickle=False) as stored:
        tasks, weights = stored["tasks"], stored["weights"]
    if weights.ndim != 2 or len(weights) != tasks.size:
        raise ValueError(f"weights are {list(weights.shape)}, and there are {tasks.size} tasks")
    return _rows(list(zip(map(str, tasks.reshape(-1)), weights.tolist(), strict=True)))
