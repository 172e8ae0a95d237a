"""Writing a file that appears when it is whole, and never half of it."""

import contextlib
import os

from etils import epath

from poly_jax.errors import UserError


def check_writable(path: epath.PathLike) -> None:
    """Raises a UserError where a file surely cannot be written, before any work is done for it."""
    place = _behind_links(path)
    # epath takes a pipe or a device for a file.
    if place.is_dir() or (os.path.exists(place) and not os.path.isfile(place)):
        raise UserError(f"{path} is no file, and none can take its place; give the path of a file")
    if not place.parent.is_dir():
        raise UserError(f"{path} cannot be written: there is no folder {place.parent}")


def write_whole(path: epath.PathLike, text: str) -> None:
    """Writes a text file beside its place and moves it there; local or remote (gs://).

    A link stays a link: what it points to is replaced.

    Raises:
      UserError: it cannot be written; what was at `path` is still there.
    """
    check_writable(path)
    place = _behind_links(path)
    partial = place.with_name(f"{place.name}.partial")
    try:
        partial.write_text(text)
        partial.replace(place)
    except OSError as error:
        with contextlib.suppress(OSError):  # Such as a file system that became full or read-only.
            partial.unlink(missing_ok=True)
        raise UserError(f"{path} cannot be written: {error.strerror or error}") from error


def _behind_links(path: epath.PathLike) -> epath.Path:
    text = os.fspath(path)
    # epath's own resolve() follows no links.
    return epath.Path(text if "://" in text else os.path.realpath(text))
