"""Reads the original files: one JSON file per task and the lists of task names per split."""

import dataclasses
from typing import Any

from etils import epath

from poly_jax.data.broken_rows import RowCheck, checking
from poly_jax.errors import UserError
from poly_jax.files.json_fields import shown
from poly_jax.files.json_file import read_json
from poly_jax.files.text_file import read_text

# File systems have no longer names of files, and a task is a file.
_LONGEST_NAME = 255
_FETCH = "fetch the file again or take it out of the folder"
# The largest files of the collection have about ten megabytes.
_MAX_BYTES = 1 << 30


@dataclasses.dataclass(frozen=True)
class Instance:
    """One example of a task.

    Attributes:
      id: the id in the file, or the task's name and the instance's position.
      input: the input text, stripped.
      references: the right answers, at least one, stripped.
    """

    id: str
    input: str
    references: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class TaskFile:
    """The contents of a task file that this project uses.

    Attributes:
      path: the file.
      definition: the first definition, stripped.
      categories: the categories as written in the file, which may have none.
      demonstrations: (input, output) of the positive examples, stripped; the file may have none.
      instances: the instances in the order of the file.
    """

    path: epath.Path
    definition: str
    categories: tuple[str, ...]
    demonstrations: tuple[tuple[str, str], ...]
    instances: tuple[Instance, ...]


def read_task(path: epath.Path, check: RowCheck | None = None) -> TaskFile:
    """Read one task file, in the current format or the first one (where the definition is a plain text).

    Args:
      path: the file.
      check: collects broken instances, which are left out; the caller finishes it. An instance is broken if a
        field is missing or of a wrong type, or a reference is empty. Its `line` is its position, from 1.

    Raises:
      UserError: the file is not strict JSON (the message has line and column), has no instance, or a field is
        missing or of a wrong type (the message has its name); or, without `check`, an instance is broken.
    """
    content = read_json(path, object, max_bytes=_MAX_BYTES, allow_nan=True, advice=_FETCH)
    definitions = _texts(content, "Definition", path)
    values = _list(content, "Instances", path)
    instances = []
    with checking(check) as checked:
        for place, value in enumerate(values):
            with checked.row(path, place + 1, f"{path}: "):
                instances.append(_instance(value, place, path))
    file = TaskFile(
        path=path,
        definition=definitions[0],
        categories=tuple(_texts(content, "Categories", path)) if "Categories" in content else (),
        demonstrations=tuple(
            (_texts(example, "input", path, where)[0], _texts(example, "output", path, where)[0])
            for example, where in (
                _record(value, "Positive Examples", place, path)
                for place, value in enumerate(_list(content, "Positive Examples", path))
            )
        )
        if "Positive Examples" in content
        else (),
        instances=tuple(instances),
    )
    if not values:
        raise UserError(f"{path}: the file has no instance in 'Instances'; take it out of the folder")
    return file


def read_names(path: epath.Path) -> list[str]:
    """Read a list of task names, one per line.

    Raises:
      UserError: there is no such file, it is not UTF-8 text, or a line is too long to be a name.
    """
    if not path.exists():
        raise UserError(
            f"no list of tasks at {path}; a Super-NaturalInstructions folder has splits/{path.parent.name}/"
            "train_tasks.txt, test_tasks.txt and excluded_tasks.txt"
        )
    lines = read_text(path, advice=_FETCH).splitlines()
    for number, line in enumerate(lines, 1):
        if len(line) > _LONGEST_NAME:
            raise UserError(f"{path}, line {number}: {line!r:.60} is too long to be a task's name; {_FETCH}")
    return [line.strip() for line in lines if line.strip()]


def _instance(value: Any, place: int, path: epath.Path) -> Instance:
    fields, where = _record(value, "Instances", place, path)
    instance = Instance(
        id=str(_scalar(fields.get("id", f"{path.stem}-{place}"), "id", path, where)),
        input=_texts(fields, "input", path, where)[0],
        references=tuple(_texts(fields, "output", path, where)),
    )
    if not all(instance.references):
        raise UserError(f"{path}: {where}has an empty text in 'output'; {_FETCH}")
    return instance


def _scalar(value: Any, key: str, path: epath.Path, where: str) -> str | int | float:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise UserError(f"{path}: {where}field {key!r} must be a text or a number, got {shown(value)}")
    return value


def _field(record: Any, key: str, path: epath.Path, where: str = "") -> Any:
    if not isinstance(record, dict):
        raise UserError(f"{path}: the file is not a JSON object")
    if key not in record:
        raise UserError(f"{path}: {where or 'the file '}has no field {key!r}")
    return record[key]


def _texts(record: Any, key: str, path: epath.Path, where: str = "") -> list[str]:
    """Return the texts of a field that holds a text or a list of texts."""
    value = _field(record, key, path, where)
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, list) or not texts or not all(isinstance(text, str) for text in texts):
        raise UserError(f"{path}: {where}field {key!r} must be a text or a list of texts, got {shown(value)}")
    return [text.strip() for text in texts]


def _list(record: Any, key: str, path: epath.Path) -> list[Any]:
    value = _field(record, key, path)
    if not isinstance(value, list):
        raise UserError(f"{path}: field {key!r} must be a list, got {shown(value)}")
    return value


def _record(value: Any, key: str, place: int, path: epath.Path) -> tuple[dict[str, Any], str]:
    """Return an element of a list field, and the words that name it in an error message."""
    if not isinstance(value, dict):
        raise UserError(f"{path}: {key!r} number {place + 1} is not a JSON object")
    return value, f"{key!r} number {place + 1} "
