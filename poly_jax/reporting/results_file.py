"""A file of results, one JSON object a line, from which a rerun takes what it need not compute again."""

import json
from collections.abc import Callable, Iterator
from typing import Any

from etils import epath

from poly_jax.errors import UserError
from poly_jax.reporting.json_text import defined, json_text

Result = dict[str, Any]


class ResultsFile:
    """A file of results, each under a key of a few fields.

    A number that is not defined, such as the loss of an adaptation that diverged, is None. Files of earlier
    versions have a bare NaN for it, which is read as None.
    """

    def __init__(self, path: epath.Path, writes: bool = True):
        """Read the results that the file has; half a line at its end, left by a stopped process, is dropped.

        Args:
          path: the file, which need not exist.
          writes: False for a host that leaves the file to another one, and keeps results in memory.

        Raises:
          UserError: the file holds something else.
        """
        self._path, self._writes = path, writes
        data = path.read_bytes() if path.exists() else b""
        whole = data[: data.rfind(b"\n") + 1]
        self._known = {_name(key): result for key, result in _parsed(whole, path)}
        if writes and whole != data:
            path.write_bytes(whole)

    def __contains__(self, key: Result) -> bool:
        """Whether there is a result under a key."""
        return _name(key) in self._known

    def get(self, key: Result) -> Result | None:
        """The result under a key, or None."""
        return self._known.get(_name(key))

    def add(self, key: Result, result: Result) -> None:
        """Append a result to the file."""
        self._known[_name(key)] = defined(result)
        if not self._writes:
            return
        with self._path.open("a") as file:
            file.write(json_text({"key": key, "result": result}) + "\n")

    def once(self, key: Result, compute: Callable[[], Result]) -> Result:
        """The result under a key: the file's, or else the computed one, which is appended to the file."""
        if key not in self:
            self.add(key, compute())
        return self._known[_name(key)]

    def matching(self, **fields: Any) -> Iterator[tuple[Result, Result]]:
        """Keys and results whose keys have these fields."""
        for name, result in self._known.items():
            key = json.loads(name)
            if all(key.get(field) == value for field, value in fields.items()):
                yield key, result


def read_results(path: epath.Path) -> list[tuple[Result, Result]]:
    """Read the keys and results of a file to which a program may be writing.

    Raises:
      UserError: the file holds something else.
    """
    data = path.read_bytes()
    return _parsed(data[: data.rfind(b"\n") + 1], path)


def _parsed(whole: bytes, path: epath.Path) -> list[tuple[Result, Result]]:
    found = []
    for number, line in enumerate(whole.splitlines(), 1):
        try:
            entry = defined(json.loads(line))
            key, result = entry["key"], entry["result"]
            if not isinstance(key, dict) or not isinstance(result, dict):
                raise TypeError
            found.append((key, result))
        except (ValueError, KeyError, TypeError, RecursionError):
            raise UserError(
                f"{path}, line {number}, is not a result of this program; delete the line"
            ) from None
    return found


def _name(key: Result) -> str:
    return json.dumps(key, sort_keys=True)
