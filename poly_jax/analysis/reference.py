"""Reads a known grouping of the tasks, to compare the router's similarities with."""

import csv
from collections.abc import Sequence
from typing import Any

import numpy as np
from etils import epath
from jaxtyping import Int

from poly_jax.analysis.agreement import of_pairs
from poly_jax.counted import counted
from poly_jax.data.registry import close_to
from poly_jax.errors import UserError
from poly_jax.files.task_file import csv_pairs, json_pairs


def read_grouping(path: str, names: Sequence[str]) -> tuple[list[str], Int[np.ndarray, "tasks groups"]]:
    """Names of the groups in alphabetical order, and 1 where a task is in a group.

    Args:
      path: path of the file, which may also name tasks that the run does not have. It is one of
        `.json`: an object with each task's group, or list of groups;
        `.csv`: a header, then for each task a line with its name and its groups.
      names: names of the tasks, in the order of their ids.

    Raises:
      UserError: the file cannot be read, lacks a task, has a task twice or without a group, or its groups do
        not distinguish any tasks.
    """
    place = epath.Path(path)
    readers = {".json": _json, ".csv": _csv}
    if place.suffix not in readers:
        raise UserError(f"--reference is {path!r}; use a file ending in {' or '.join(readers)}")
    try:
        pairs = readers[place.suffix](place.read_text())
    except FileNotFoundError:
        raise UserError(f"--reference is {path!r}, and there is no such file") from None
    # These are the errors that the parsers raise for a broken file.
    except (OSError, ValueError, csv.Error) as e:
        raise UserError(
            f"--reference={path} cannot be read as a {place.suffix} file ({' '.join(str(e).split())});"
            " write it as docs/routing.md shows"
        ) from None
    groups: dict[str, list[str]] = {}
    for name, found in pairs:
        if name in groups:
            raise UserError(f"{path} has task {name!r} twice; give it one line with all of its groups")
        if not found:
            raise UserError(f"{path} has no group for {name!r}; give it one or more")
        groups[name] = found
    if missing := [name for name in names if name not in groups]:
        raise UserError(
            f"{path} lacks {counted(len(missing), 'task')} of the run, such as {missing[0]!r}"
            f" ({close_to(missing[0], groups, 'the file has all')}); every task needs a group"
        )
    columns = sorted({group for name in names for group in groups[name]})
    matrix = np.array([[int(column in groups[name]) for column in columns] for name in names])
    shared = of_pairs(matrix @ matrix.T)
    if shared.size == 0 or np.ptp(shared) == 0:
        raise UserError(
            f"{path}: every two tasks of the run share the same number of groups, so there is nothing to"
            " compare; give groups that some tasks share and others do not"
        )
    return columns, matrix


def _json(text: str) -> list[tuple[str, list[str]]]:
    return [(name, _groups(name, value)) for name, value in json_pairs(text)]


def _groups(name: str, value: Any) -> list[str]:
    groups = [value] if isinstance(value, str) else value
    if not isinstance(groups, list) or not all(isinstance(group, str) for group in groups):
        raise ValueError(
            f"the value of {name!r} is {value!r}, not the name of a group or a list of such names"
        )
    return groups


def _csv(text: str) -> list[tuple[str, list[str]]]:
    return [(name, [cell for cell in cells if cell]) for name, cells in csv_pairs(text)]
