"""The bytes of rows as CrossFit writes them, so that files can be compared with the published MD5 sums."""

import hashlib
from collections.abc import Iterable

from poly_jax.errors import UserError
from poly_jax.tasks.crossfit.reading import Row


def to_bytes(rows: Iterable[Row]) -> bytes:
    r"""Return the bytes of a file with these rows: UTF-8, fields joined by tabs, "\n" after every row.

    Raises:
      UserError: a field has a tab or a line end in it, or a row has fewer than two fields.
    """
    lines = []
    for number, row in enumerate(rows, 1):
        if len(row.fields) < 2 or any("\t" in field or "\n" in field for field in row.fields):
            raise UserError(
                f"row {number}, {row.fields!r:.80}, cannot be written as TSV; give an input and at least one "
                "target, without tabs and line ends"
            )
        lines.append("\t".join(row.fields) + "\n")
    return "".join(lines).encode()


def md5(rows: Iterable[Row]) -> str:
    """Return the MD5 sum of `to_bytes` in hexadecimal digits, as CrossFit publishes it for each file."""
    return hashlib.md5(to_bytes(rows), usedforsecurity=False).hexdigest()
