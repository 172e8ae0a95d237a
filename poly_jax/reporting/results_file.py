"""ResultsFile as JSON lines that a rerun does not compute again."""

import json
from collections.abc import Callable, Iterator
from typing import Any

from etils import epath

from poly_jax.errors import UserError

Result = dict[str, Any]


class ResultsFile:
    """A file of results, one JSON object a line, each under a key of a few fields."""

    def __init__(self, path: epath.Path):
        """Reads what is there; half a line at the end, of a process that was stopped, is dropped.

        Raises:
          UserError: there is something else.
        """
        self._path = path
        self._known: dict[str, Result] = {}
        text = path.read_text() if path.exists() else ""
        whole = text[: text.rfind("\n") + 1]
        for number, line in enumerate(whole.splitlines(), 1):
            try:
                entry = json.loads(line)
                self._known[_name(entry["key"])] = entry["result"]
            except (ValueError, KeyError, TypeError):
                raise UserError(f"{path}, line {number}, is no result of this program; delete it") from None
        if whole != text:
            path.write_text(whole)

    def __contains__(self, key: Result) -> bool:
        """Whether there is a result under a key."""
        return _name(key) in self._known

    def get(self, key: Result) -> Result | None:
        """The result under a key, if there is one."""
        return self._known.get(_name(key))

    def add(self, key: Result, result: Result) -> None:
        """Appends a result to the file."""
        self._known[_name(key)] = result
        with self._path.open("a") as file:
            file.write(json.dumps({"key": key, "result": result}) + "\n")

    def once(self, key: Result, compute: Callable[[], Result]) -> Result:
        """The result under a key: from the file, or computed and appended to it."""
        if key not in self:
            self.add(key, compute())
        return self._known[_name(key)]

    def matching(self, **fields: Any) -> Iterator[tuple[Result, Result]]:
        """Keys and results whose keys have these fields."""
        for name, result in self._known.items():
            key = json.loads(name)
            if all(key.get(field) == value for field, value in fields.items()):
                yield key, result


def _name(key: Result) -> str:
    return json.dumps(key, sort_keys=True)
