"""Writes a local file that is whole after a crash, a kill or a full disk, or is not there at all."""

import contextlib
import os
import pathlib
from collections.abc import Iterator

from poly_jax.errors import UserError

PARTIAL = ".partial"
"""The end of the name of a file that is being written."""


class WriteError(UserError):
    """A file cannot be written, for example because the disk is full."""


@contextlib.contextmanager
def durable_file(path: pathlib.Path) -> Iterator[pathlib.Path]:
    """Yield a path to write to; at the end of the block the file moves to `path`, after it is on the disk.

    `synchronise` of the folder makes the move itself outlive a crash of the machine.
    The path that the block writes to has the number of this process in its name, so that two processes never
    write to one file.

    Raises:
      WriteError: the operating system refuses; nothing new is left behind.
    """
    partial = path.with_name(f"{path.name}.{os.getpid()}{PARTIAL}")
    try:
        yield partial
        synchronise(partial)
        partial.replace(path)
    except OSError as error:
        raise WriteError(f"{path} cannot be written: {error.strerror or error}") from error
    finally:
        with contextlib.suppress(OSError):  # The file system may have become full or read-only.
            partial.unlink(missing_ok=True)


def write_durable(path: pathlib.Path, content: str | bytes) -> None:
    """Write a file by `durable_file`.

    Raises:
      WriteError: an error of `durable_file`.
    """
    with durable_file(path) as partial:
        partial.write_bytes(content.encode() if isinstance(content, str) else content)


def synchronise(path: pathlib.Path) -> None:
    """Wait until the disk holds a file, or the names in a folder."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
