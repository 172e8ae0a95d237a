"""Small folders in the layout of Super-NaturalInstructions."""

import json
import pathlib
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from poly_jax.data.quiet import seqio
from poly_jax.tasks.super_natural_instructions import tasks


@pytest.fixture
def registry() -> Iterator[None]:
    """Undo the registrations of a test."""
    names, mixtures = dict(seqio.TaskRegistry._REGISTRY), dict(seqio.MixtureRegistry._REGISTRY)
    registered = dict(tasks._registered)
    yield
    seqio.TaskRegistry._REGISTRY, seqio.MixtureRegistry._REGISTRY = names, mixtures
    tasks._registered.clear()
    tasks._registered.update(registered)


@pytest.fixture
def task_file() -> Callable[..., dict[str, Any]]:
    """A function that makes a task file: 'question n' has the references 'answer n' and 'reply n'."""

    def make(size: int, **fields: Any) -> dict[str, Any]:
        return {
            "Definition": ["Answer the question"],
            "Categories": ["Question Answering"],
            "Positive Examples": [
                {"input": "one?", "output": "1", "explanation": ""},
                {"input": "two", "output": "2.", "explanation": ""},
                {"input": "three", "output": "3", "explanation": ""},
            ],
            "Instances": [
                {"id": f"id-{n}", "input": f"question {n}", "output": [f"answer {n}", f"reply {n}"]}
                for n in range(size)
            ],
            **fields,
        }

    return make


@pytest.fixture
def folder(tmp_path: pathlib.Path) -> Callable[..., pathlib.Path]:
    """A function that writes a folder from the contents of files by stem, and the two lists of stems."""

    def write(files: dict[str, Any], train: tuple[str, ...] = (), test: tuple[str, ...] = ()) -> pathlib.Path:
        (tmp_path / "tasks").mkdir()
        (tmp_path / "splits" / "default").mkdir(parents=True)
        for stem, content in files.items():
            text = content if isinstance(content, str) else json.dumps(content)
            (tmp_path / "tasks" / f"{stem}.json").write_text(text)
        for split, stems in (("train", train), ("test", test), ("excluded", ())):
            (tmp_path / "splits" / "default" / f"{split}_tasks.txt").write_text("\n".join(stems) + "\n")
        return tmp_path

    return write
