"""Reads the original files: one JSON file per task and the lists of task names per split."""

import dataclasses
import json
from typing import Any

from etils import epath

from poly_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class Instance:
    """One example of a task.

    Attributes:
      id: of the file, or the task's name and the instance's place.
      input: stripped.
      references: at least one right answer, stripped.
    """

    id: str
    input: str
    references: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class TaskFile:
    """What the project uses of a task file.

    Attributes:
      path: the file.
      definition: the first definition, stripped.
      categories: as written in the file; none where it says nothing.
      demonstrations: (input, output) of the positive examples, stripped; none where it has none.
      instances: in the order of the file.
    """

    path: epath.Path
    definition: str
    categories: tuple[str, ...]
    demonstrations: tuple[tuple[str, str], ...]
    instances: tuple[Instance, ...]


def read_task(path: epath.Path) -> TaskFile:
    """Reads one task file, of the present format or of the first (definition as a plain text).

    Raises:
      UserError: the file is no JSON (the message has line and column), or a field is missing or of a wrong
        type (the message has its name).
    """
    try:
        content = json.loads(path.read_text())
    except json.JSONDecodeError as error:
        raise UserError(
            f"{path}: broken JSON at line {error.lineno}, column {error.colno}: {error.msg}; "
            "fetch the file again or take it out of the folder"
        ) from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 text, at byte {error.start}; fetch the file again") from None
    definitions = _texts(content, "Definition", path)
    return TaskFile(
        path=path,
        definition=definitions[0],
        categories=tuple(_texts(content, "Categories", path)) if "Categories" in content else (),
        demonstrations=tuple(
            (_texts(example, "input", path, where)[0], _texts(example, "output", path, where)[0])
            for example, where in _records(content, "Positive Examples", path)
        )
        if "Positive Examples" in content
        else (),
        instances=tuple(
            Instance(
                id=str(instance.get("id", f"{path.stem}-{place}")),
                input=_texts(instance, "input", path, where)[0],
                references=tuple(_texts(instance, "output", path, where)),
            )
            for place, (instance, where) in enumerate(_records(content, "Instances", path))
        ),
    )


def read_names(path: epath.Path) -> list[str]:
    """Reads a list of task names, one a line.

    Raises:
      UserError: there is no such file.
    """
    try:
        lines = path.read_text().splitlines()
    except FileNotFoundError:
        raise UserError(
            f"no list of tasks at {path}; a Super-NaturalInstructions folder has splits/default/"
            "train_tasks.txt, test_tasks.txt and excluded_tasks.txt"
        ) from None
    return [line.strip() for line in lines if line.strip()]


def _field(record: Any, key: str, path: epath.Path, where: str = "") -> Any:
    if not isinstance(record, dict):
        raise UserError(f"{path}: the file is not a JSON object")
    if key not in record:
        raise UserError(f"{path}: {where or 'the file '}has no field {key!r}")
    return record[key]


def _texts(record: Any, key: str, path: epath.Path, where: str = "") -> list[str]:
    """A field that holds a text or a list of texts."""
    value = _field(record, key, path, where)
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, list) or not texts or not all(isinstance(text, str) for text in texts):
        raise UserError(f"{path}: {where}field {key!r} must be a text or a list of texts, got {value!r:.80}")
    return [text.strip() for text in texts]


def _records(record: Any, key: str, path: epath.Path) -> list[tuple[dict[str, Any], str]]:
    """The elements of a list field, each with the words that name it in an error."""
    value = _field(record, key, path)
    if not isinstance(value, list):
        raise UserError(f"{path}: field {key!r} must be a list, got {value!r:.80}")
    for place, element in enumerate(value):
        if not isinstance(element, dict):
            raise UserError(f"{path}: {key!r} number {place} is not a JSON object")
    return [(element, f"{key!r} number {place} ") for place, element in enumerate(value)]
