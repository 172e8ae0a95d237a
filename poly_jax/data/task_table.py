"""The table that gives every task its id, saved with each checkpoint so that ids keep their meaning."""

import dataclasses
import functools
import hashlib
import json
import operator
import os
from collections.abc import Mapping

from etils import epath

from poly_jax.counted import counted
from poly_jax.data.registry import close_to, mixture_or_task
from poly_jax.errors import UserError
from poly_jax.files.json_fields import Fields
from poly_jax.files.json_file import read_json


@dataclasses.dataclass(frozen=True)
class TaskTable:
    """Task names in sorted order; the id of a task is the index of its name.

    Attributes:
      names: the task names: at least one, sorted, without repetition.

    Raises:
      UserError: there are no names, or they are unsorted or repeated.
    """

    names: tuple[str, ...]

    def __post_init__(self) -> None:
        if not self.names:
            raise UserError("a task table needs at least one task name, got none")
        for before, name in zip(self.names, self.names[1:], strict=False):
            if before >= name:
                fault = "is there twice" if before == name else f"comes after {before!r}"
                raise UserError(f"the names of a task table are sorted and unique, but {name!r} {fault}")

    @classmethod
    def of(cls, mixture_or_task_name: str) -> "TaskTable":
        """Make the table of a registered seqio mixture's tasks, or of one task.

        Raises:
          UserError: no mixture or task has this name.
        """
        found = mixture_or_task(mixture_or_task_name)
        return cls(tuple(sorted(task.name for task in getattr(found, "tasks", [found]))))

    def __len__(self) -> int:
        return len(self.names)

    @functools.cached_property
    def _ids(self) -> Mapping[str, int]:
        return {name: place for place, name in enumerate(self.names)}

    @functools.cached_property
    def digest(self) -> str:
        """Eight hexadecimal digits that stand for the names and their order."""
        return hashlib.sha256("\n".join(self.names).encode()).hexdigest()[:8]

    def id(self, name: str) -> int:
        """Return the id of a task.

        Raises:
          UserError: the table has no task of that name.
        """
        try:
            return self._ids[name]
        except KeyError:
            raise UserError(
                f"task {name!r} is not in the table of {counted(len(self), 'task')} ({self.close_to(name)})"
            ) from None

    def close_to(self, name: str) -> str:
        """Return a phrase for an error message: the tasks that may be meant by an unknown name."""
        return close_to(name, self.names, "a run has all in checkpoints/STEP/tasks/metadata")

    def name(self, id: int) -> str:
        """Return the name of the task with an id.

        Raises:
          UserError: the id is not in [0, number of tasks).
        """
        place = operator.index(id)
        if not 0 <= place < len(self):
            raise UserError(f"task id {place} is out of range: the table has ids 0 to {len(self) - 1}")
        return self.names[place]

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the table as JSON; the path may be remote (gs://)."""
        epath.Path(path).write_text(json.dumps({"tasks": list(self.names)}, indent=1) + "\n")

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "TaskTable":
        """Read a table that `save` wrote.

        Raises:
          UserError: the file is missing or holds no task table.
        """
        advice = "give the file saved with a run"
        if not epath.Path(path).exists():
            raise UserError(f"there is no task table at {os.fspath(path)!r}; {advice}")
        try:
            return cls(tuple(Fields(read_json(path), path).take_list("tasks", str)))
        except UserError as error:
            raise UserError(f"{os.fspath(path)!r} holds no task table ({error}); {advice}") from None
