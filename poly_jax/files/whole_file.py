"""Writes a file that appears only when it is complete."""

import contextlib
import os

from etils import epath

from poly_jax.errors import UserError


def check_writable(path: epath.PathLike) -> None:
    """Raise a UserError where a file surely cannot be written, before any work is done for it."""
    if not os.fspath(path):
        raise UserError("the path of the file to write is empty; give the path of a file")
    place = _behind_links(path)
    # epath treats a pipe or a device as a file. No path leads to the pipe behind /dev/stdout.
    if place.is_dir() or (os.path.exists(path) and not os.path.isfile(path)):
        raise UserError(f"{path} is not a file and cannot be replaced by one; give the path of a file")
    if not place.parent.is_dir():
        raise UserError(f"{path} cannot be written: there is no folder {place.parent}")


def write_whole(path: epath.PathLike, content: str | bytes) -> None:
    """Write a file beside its path and move it there; the path may be local or remote (gs://).

    If the path is a link, it stays a link, and the file that it points to is replaced.

    Raises:
      UserError: the file cannot be written; an earlier file at `path` is unchanged.
    """
    check_writable(path)
    place = _behind_links(path)
    partial = place.with_name(f"{place.name}.partial")
    try:
        if isinstance(content, str):
            partial.write_text(content)
        else:
            partial.write_bytes(content)
        partial.replace(place)
    except OSError as error:
        with contextlib.suppress(OSError):  # The file system may have become full or read-only.
            partial.unlink(missing_ok=True)
        raise UserError(f"{path} cannot be written: {error.strerror or error}") from error


def _behind_links(path: epath.PathLike) -> epath.Path:
    text = os.fspath(path)
    # epath's own resolve() follows no links.
    return epath.Path(text if "://" in text else os.path.realpath(text))
