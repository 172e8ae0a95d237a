"""The first line of a run's `config.gin`, from which it is seen whether the file has changed."""

import hashlib
import re

from poly_jax.errors import UserError

_SEAL = re.compile(r"# sha256 of the lines below: ([0-9a-f]{64})\n")


def sealed(text: str) -> str:
    """Return a gin file with a first line that holds the SHA-256 of the rest."""
    return f"# sha256 of the lines below: {_digest(text)}\n{text}"


def check_seal(text: str, path: str) -> None:
    """Compare a run's gin file with its first line. Files of earlier versions have no such line, and pass.

    Args:
      text: the file's content.
      path: the file's path, for the message.

    Raises:
      UserError: the file has changed since it was written, or is empty, as a copy that was cut short.
    """
    if not text.strip():
        raise UserError(f"{path} is empty; copy it again from the run")
    seal = _SEAL.match(text)
    if seal and seal[1] != _digest(text[seal.end() :]):
        raise UserError(
            f"{path} has changed since the run wrote it; copy it again, or delete its first line if you"
            " changed it yourself"
        )


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
