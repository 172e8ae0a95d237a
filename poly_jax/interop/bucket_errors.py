"""What goes wrong with paths in buckets, in one line: networks, permissions, kinds of buckets."""

import contextlib
import os
from collections.abc import Iterator

from etils import epath

from poly_jax.errors import UserError

_SHOWN = 200


@contextlib.contextmanager
def explained(path: epath.PathLike) -> Iterator[None]:
    """Raises a UserError about the path, if it is none of a local file, in place of any other error."""
    try:
        yield
    except UserError:
        raise
    # The errors of TensorFlow's and of fsspec's file systems have no base of their own.
    except Exception as e:
        if "://" not in os.fspath(path):
            raise
        reason = " ".join(str(e).split())[:_SHOWN]
        raise UserError(
            f"{path} cannot be reached ({reason}); check the path, the network and your permissions"
        ) from e
