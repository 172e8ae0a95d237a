"""Writes TFDS's data set `natural_instructions` as task files, which `register` reads.

    python -m poly_jax.tasks.super_natural_instructions.from_tfds \
      --splits=natural-instructions/splits/default --output=sni

TFDS keeps one reference of an instance and no category, and it shuffles instances. The official test set of a
held-out task is the first 100 instances of its file, so it cannot be told from the others: held-out tasks are
left out. The training tasks are complete.
"""

import argparse
import collections
import json
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from etils import epath

from poly_jax.counted import counted
from poly_jax.errors import UserError
from poly_jax.files.new_output import new_folder
from poly_jax.tasks.super_natural_instructions.reading import read_names
from poly_jax.tasks.t0_pretraining.raw_examples import tfds_examples

_LISTS = ("train", "test", "excluded")
_FIELDS = ("id", "input", "output", "task_name", "definition")
# A task becomes a file's name, so that it may have no folder in it.
_TASK = re.compile(r"[\w.-]+")
# Rows in memory, before they are added to the files of their tasks.
_HELD = 200_000


def write_tasks(
    examples: Iterable[Mapping[str, Any]], splits: epath.PathLike, output: epath.PathLike
) -> dict[str, int]:
    """Write `<output>/tasks/<task>.json` for each task that is not held out, and the split lists.

    Args:
      examples: TFDS's examples, in any order.
      splits: folder of the official lists `train_tasks.txt`, `test_tasks.txt` and `excluded_tasks.txt`.
      output: the new folder.

    Returns:
      The number of instances of each task.

    Raises:
      UserError: a list or a field is missing, the output exists already, or it cannot be written.
    """
    lists = {name: read_names(epath.Path(splits) / f"{name}_tasks.txt") for name in _LISTS}
    held_out = frozenset(lists["test"])
    with new_folder(output) as folder:
        rows_folder, tasks = folder / "rows", folder / "tasks"
        for each in (rows_folder, tasks, folder / "splits" / "default"):
            each.mkdir(parents=True)
        counts, definitions = _gather(examples, held_out, rows_folder)
        for name, definition in definitions.items():
            instances = [json.loads(line) for line in (rows_folder / name).read_text().split("\n")[:-1]]
            # TFDS's order depends on its version; the order of the ids does not.
            instances.sort(key=lambda instance: str(instance["id"]))
            content = {"Definition": [definition], "Instances": instances}
            (tasks / f"{name}.json").write_text(json.dumps(content, ensure_ascii=False, indent=1) + "\n")
        rows_folder.rmtree()
        for name, names in lists.items():
            (folder / "splits" / "default" / f"{name}_tasks.txt").write_text("\n".join(names) + "\n")
    return counts


def _gather(
    examples: Iterable[Mapping[str, Any]], held_out: frozenset[str], folder: epath.Path
) -> tuple[dict[str, int], dict[str, str]]:
    """Write the instances of each task to a file of lines; return their numbers and the definitions."""
    definitions: dict[str, str] = {}
    counts: collections.Counter[str] = collections.Counter()
    held: dict[str, list[str]] = {}
    total = 0
    for number, example in enumerate(examples, 1):
        if missing := [field for field in _FIELDS if not isinstance(example.get(field), str)]:
            raise UserError(
                f"example {number} has no text {missing[0]!r}; give TFDS's data set 'natural_instructions', "
                "version 1.0.1 or later"
            )
        name = example["task_name"]
        if not _TASK.fullmatch(name):
            raise UserError(
                f"example {number}: {name!r:.80} cannot be the name of a task; prepare TFDS again"
            )
        if name in held_out:
            continue
        definitions.setdefault(name, example["definition"])
        row = {"id": example["id"], "input": example["input"], "output": [example["output"]]}
        held.setdefault(name, []).append(json.dumps(row, ensure_ascii=False) + "\n")
        counts[name] += 1
        total += 1
        if total % _HELD == 0:
            _add(held, folder)
    _add(held, folder)
    if not counts:
        raise UserError("there is no instance of a task that is not held out; check the split lists")
    return dict(counts), definitions


def _add(held: dict[str, list[str]], folder: epath.Path) -> None:
    for name, lines in held.items():
        with (folder / name).open("a") as file:
            file.write("".join(lines))
    held.clear()


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the task files; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m poly_jax.tasks.super_natural_instructions.from_tfds",
        description="Writes TFDS's natural_instructions as task files.",
    )
    parser.add_argument("--splits", required=True, help="folder of the official lists, splits/default")
    parser.add_argument("--output", required=True, help="the new folder")
    parser.add_argument("--tfds", default="natural_instructions", help="TFDS's name of the data set")
    parser.add_argument("--data_dir", help="TFDS's folder")
    given = parser.parse_args(arguments)
    try:
        counts = write_tasks(tfds_examples(given.tfds, data_dir=given.data_dir), given.splits, given.output)
    except UserError as error:
        print(error, file=sys.stderr)
        return 1
    print(
        f"{counted(len(counts), 'task')} with {counted(sum(counts.values()), 'instance')} in {given.output}"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
