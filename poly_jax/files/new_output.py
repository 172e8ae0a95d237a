"""What a conversion writes: nothing that is there is overwritten, and nothing half-written is left."""

import contextlib
from collections.abc import Iterator

from etils import epath

from poly_jax.errors import UserError


def check_new(output: epath.PathLike) -> None:
    """Raises a UserError where there is something already; an empty folder is nothing."""
    place = epath.Path(output)
    if place.exists() and (not place.is_dir() or any(place.iterdir())):
        raise UserError(f"{output} exists; choose another output, or delete it")


@contextlib.contextmanager
def new_folder(output: epath.PathLike) -> Iterator[epath.Path]:
    """Makes a folder, to be filled inside of this; where that fails the folder is deleted.

    Raises:
      UserError: something is there already, or the folder or what is in it cannot be written.
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
