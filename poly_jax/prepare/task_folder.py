"""The folder of one task in an offline cache: seqio's files, and this project's manifest of them.

seqio reads `<split>.tfrecord-<shard>-of-<shards>`, `info.<split>.json` and `stats.<split>.json`, and takes a
folder for complete that has a file `COMPLETED`. Here `COMPLETED` holds the SHA-256 of `manifest.json`, which
holds the SHA-256 of every other file and what the cache was made from.
"""

import json
import os
import pathlib
import re
from collections.abc import Mapping
from typing import Any

from poly_jax.data.quiet import seqio
from poly_jax.errors import UserError
from poly_jax.files.durable_file import PARTIAL, WriteError, synchronise, write_durable
from poly_jax.prepare.origin import sha256

COMPLETED = "COMPLETED"
REPORT = "report.json"
_MANIFEST = "manifest.json"
_FORMAT = 1
_OURS = re.compile(
    rf"{COMPLETED}|{REPORT}|{_MANIFEST}|.*\.tfrecord-\d+-of-\d+|info\..*\.json|stats\..*\.json"
)


class TaskFolder:
    """The folder of one task.

    Args:
      cache_dir: the folder of the cache.
      task: name of the task.
    """

    def __init__(self, cache_dir: str | os.PathLike, task: str) -> None:
        self.path = pathlib.Path(cache_dir, seqio.get_task_dir_from_name(task))
        self._task = task

    @property
    def is_complete(self) -> bool:
        """Whether seqio would read the folder."""
        return (self.path / COMPLETED).exists()

    def shard(self, split: str, index: int, count: int) -> pathlib.Path:
        """Return the path of a shard."""
        prefix = seqio.get_cached_tfrecord_prefix(self.path, split)
        return pathlib.Path(f"{prefix}-{index:05d}-of-{count:05d}")

    def clear(self) -> None:
        """Make the folder, and delete what an earlier run left in it; files of others stay.

        Raises:
          WriteError: the folder cannot be written.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            # First the file that makes the others count.
            (self.path / COMPLETED).unlink(missing_ok=True)
            for path in self.path.iterdir():
                if path.name.endswith(PARTIAL) or _OURS.fullmatch(path.name):
                    path.unlink(missing_ok=True)
        except OSError as error:
            raise WriteError(f"{self.path} cannot be written: {error.strerror or error}") from error

    def write_json(self, name: str, content: Any) -> None:
        """Write a JSON file as seqio's own tools do."""
        write_durable(self.path / name, json.dumps(content, sort_keys=True, indent=2) + "\n")

    def complete(self, files: Mapping[str, Mapping[str, Any]], origins: Mapping[str, Any]) -> None:
        """Write the manifest, and then `COMPLETED`.

        Args:
          files: size and checksum of the shards, by the name of their file.
          origins: origin of each split, see `origin`.
        """
        others = sorted(path for path in self.path.iterdir() if path.suffix == ".json")
        described = {path.name: {"bytes": path.stat().st_size, "sha256": sha256(path)} for path in others}
        manifest = {
            "format": _FORMAT,
            "task": self._task,
            "seqio_version": seqio.__version__,
            "splits": origins,
            "files": {**files, **described},
        }
        self.write_json(_MANIFEST, manifest)
        synchronise(self.path)
        write_durable(self.path / COMPLETED, sha256(self.path / _MANIFEST) + "\n")
        synchronise(self.path)

    def damaged(self) -> str | None:
        """Return the name of a file of a complete folder that is not as it was written; None for none.

        Raises:
          UserError: another program has made the folder.
        """
        manifest = self.path / _MANIFEST
        if not manifest.exists():
            raise UserError(
                f"{self.path} holds a cache that `poly-jax prepare` has not made; give another --output_dir, "
                "or delete the folder"
            )
        if (self.path / COMPLETED).read_text(errors="replace").strip() != sha256(manifest):
            return _MANIFEST
        content = self.manifest()
        if content.get("format") != _FORMAT:
            return _MANIFEST
        for name, known in content["files"].items():
            path = self.path / name
            if not path.is_file() or path.stat().st_size != known["bytes"] or sha256(path) != known["sha256"]:
                return name
        return None

    def manifest(self) -> dict[str, Any]:
        """Return the manifest of a complete folder whose checksums match."""
        return json.loads((self.path / _MANIFEST).read_text())

    def report(self) -> dict[str, Any]:
        """Return the report of a complete folder whose checksums match."""
        return json.loads((self.path / REPORT).read_text())
