"""The data and settings that a task's cache was made from, to tell it from a cache of others."""

import functools
import hashlib
import os
from typing import Any

from poly_jax.data.quiet import seqio
from poly_jax.prepare.records import serialized
from poly_jax.prepare.rows import batches, n_shards, shard

FIRST_ROWS = 16
"""Number of rows of a split that are made again to see whether a finished cache still fits its task."""

_PIECE = 1 << 20


def origin(task: seqio.Task, split: str, first_rows: str) -> dict[str, Any]:
    """Describe what a split is made from.

    The contents of its raw files count, and neither their folder nor their dates. A source may have a method
    `files(split)` for the paths of the files that it reads; for any other source these are its shards. Remote
    files do not count. Settings, code and sources without files cannot be described in general, so the number
    of rows and the first rows stand for them.

    Args:
      task: the task.
      split: name of the split.
      first_rows: the digest of the split's first rows.
    """
    source = task.source
    paths = source.files(split) if hasattr(source, "files") else source.list_shards(split)
    return {
        "files": [_content(path) for path in map(os.fspath, paths) if os.path.isfile(path)],
        "input_examples": task.num_input_examples(split),
        "first_rows": first_rows,
    }


def digest_of_first_rows(task: seqio.Task, split: str) -> str:
    """Make the first rows of a split's first shard, and return their digest."""
    rows = shard(task, split, 0, n_shards(task, split)).take(FIRST_ROWS)
    return digest([record for batch in batches(rows, task, split) for record in serialized(batch)])


def digest(records: list[bytes]) -> str:
    """Return the digest of the first rows, of which there may be more."""
    content = hashlib.sha256()
    for record in records[:FIRST_ROWS]:
        content.update(hashlib.sha256(record).digest())
    return content.hexdigest()


def changed(before: dict[str, Any], now: dict[str, Any]) -> str | None:
    """Say in a few words what is no longer as it was when a split was prepared; None if nothing changed."""
    then, files = before.get("files"), now["files"]
    if then != files:
        names = [file["name"] for file in files if not isinstance(then, list) or file not in then]
        return f"raw file {names[0]} has changed" if names else "a raw file is missing now"
    if before.get("input_examples") != now["input_examples"]:
        return f"it had {before.get('input_examples')} raw rows, and has {now['input_examples']} now"
    if before.get("first_rows") != now["first_rows"]:
        return "its first rows are different now, so that its settings or its code have changed"
    return None


def _content(path: str) -> dict[str, Any]:
    status = os.stat(path)
    return _hashed(path, status.st_size, status.st_mtime_ns)


@functools.lru_cache(maxsize=4096)
def _hashed(path: str, size: int, modified: int) -> dict[str, Any]:
    del modified  # A file that was changed while the program runs is read again.
    return {"name": os.path.basename(path), "bytes": size, "sha256": sha256(path)}


def sha256(path: str | os.PathLike[str]) -> str:
    """Return the SHA-256 of a file's contents, in hexadecimal."""
    content = hashlib.sha256()
    with open(path, "rb") as file:
        while piece := file.read(_PIECE):
            content.update(piece)
    return content.hexdigest()
