"""Names the tasks of another system's adapter, and sorts its routers in the order of the names."""

import pathlib

import numpy as np

from poly_jax.counted import counted
from poly_jax.errors import UserError
from poly_jax.files.json_file import parse_json
from poly_jax.files.text_file import read_text
from poly_jax.weights.parameter_names import axis as axis_of
from poly_jax.weights.parameter_names import is_router
from poly_jax.weights.tree import ParameterTree, flatten, unflatten

# This file lies beside an adapter's own files, because PEFT only numbers its tasks.
FILE = "tasks.json"
_ADVICE = "give a list of names of tasks"


def read_names(path: pathlib.Path, n_tasks: int | None) -> list[str]:
    """Read the names of tasks in the order of their ids.

    Args:
      path: path of a file with a JSON list, `{"tasks": [...]}`, or one name per line.
      n_tasks: number of tasks; None where only the file determines it.

    Raises:
      UserError: the file cannot be read, or has a wrong number of names or a repeated name.
    """
    if not path.is_file():
        raise UserError(f"{path} cannot be read as names of tasks: there is no such file")
    text = read_text(path, advice=_ADVICE)
    if text.lstrip().startswith(("[", "{")):
        content = parse_json(text, path, object, advice=_ADVICE)
        names = content.get("tasks") if isinstance(content, dict) else content
    else:
        names = [line.strip() for line in text.splitlines() if line.strip()]
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise UserError(f"{path} does not hold a list of names of tasks")
    if not names:
        raise UserError(f"{path} names no task; give the names of the adapter's tasks")
    if n_tasks is not None and len(names) != n_tasks:
        raise UserError(f"{path} has {counted(len(names), 'name')}, and {n_tasks} are needed")
    if len(set(names)) != len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise UserError(f"{path} names {twice!r} twice; give every task a different name")
    return names


def numbered(n_tasks: int) -> list[str]:
    """Make names for tasks that have only numbers; sorting the names keeps their order."""
    width = len(str(n_tasks - 1))
    return [f"task_{number:0{width}}" for number in range(n_tasks)]


def sorted_by_task(
    tree: ParameterTree, names: list[str], owned: bool
) -> tuple[ParameterTree, tuple[str, ...]]:
    """Sort adapters by the names of their tasks, as in a task table; return them and the sorted names.

    Args:
      tree: skills and routers, one per layer.
      names: names of the tasks, in the order of the tree's tables.
      owned: whether every task owns the skill of its number; skills are then sorted with their tasks.
    """
    order = sorted(range(len(names)), key=names.__getitem__)
    leaves = {}
    for name, leaf in flatten(tree).items():
        # Where tasks own skills, the inventory has one skill for each task.
        axis = axis_of(name, "tasks" if not owned or is_router(name) else "skills")
        leaves[name] = leaf if axis is None else np.take(leaf, order, axis=axis)
    return unflatten(leaves), tuple(names[place] for place in order)
