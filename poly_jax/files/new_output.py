"""New output of a conversion, which overwrites nothing and leaves nothing half-written."""

import contextlib
from collections.abc import Iterator

from etils import epath

from poly_jax.errors import UserError


def check_new(output: epath.PathLike) -> None:
    """Raise a UserError if the output exists already, unless it is an empty folder."""
    place = epath.Path(output)
    if place.exists() and (not place.is_dir() or any(place.iterdir())):
        raise UserError(f"{output} exists; choose another output, or delete it")


@contextlib.contextmanager
def new_folder(output: epath.PathLike) -> Iterator[epath.Path]:
    """Make a folder that the block fills; the folder is deleted if the block fails.

    Raises:
      UserError: the output exists already, or the folder or its contents cannot be written.
    """
    check_new(output)
    folder = epath.Path(output)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _or_nothing(folder):
            yield folder
    except OSError as e:
        raise UserError(f"{output} cannot be written: {e.strerror or e}") from e


@contextlib.contextmanager
def _or_nothing(folder: epath.Path) -> Iterator[None]:
    try:
        yield
    except BaseException:
        folder.rmtree(missing_ok=True)
        raise
