"""Results as JSON lines that a rerun does not compute again."""

import json
from collections.abc import Callable, Iterator
from typing import Any

from etils import epath

Result = dict[str, Any]


class Results:
    """A file of results, one JSON object a line, each under a key of a few fields."""

    def __init__(self, path: epath.Path):
        """Reads what is there."""
        self._path = path
        self._known: dict[str, Result] = {}
        if path.exists():
            for line in path.read_text().splitlines():
                entry = json.loads(line)
                self._known[_name(entry["key"])] = entry["result"]

    def once(self, key: Result, compute: Callable[[], Result]) -> Result:
        """The result under a key: from the file, or computed and appended to it."""
        name = _name(key)
        if name not in self._known:
            self._known[name] = compute()
            with self._path.open("a") as file:
                file.write(json.dumps({"key": key, "result": self._known[name]}) + "\n")
        return self._known[name]

    def matching(self, **fields: Any) -> Iterator[tuple[Result, Result]]:
        """Keys and results whose keys have these fields."""
        for name, result in self._known.items():
            key = json.loads(name)
            if all(key.get(field) == value for field, value in fields.items()):
                yield key, result


def _name(key: Result) -> str:
    return json.dumps(key, sort_keys=True)
