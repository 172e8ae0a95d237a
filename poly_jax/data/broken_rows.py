"""Rows of a task's files that cannot be read: where they are, what is wrong, and how many are accepted."""

import contextlib
import dataclasses
import sys
from collections.abc import Iterator

from poly_jax.counted import counted
from poly_jax.errors import UserError

# Broken rows that a message describes; the message has the number of the others.
_SHOWN = 3


@dataclasses.dataclass(frozen=True)
class BrokenRow:
    """A row that its reader dropped.

    A seqio data source that drops rows has a method `broken_rows(split)`. It returns a tuple of the rows that
    were dropped when the source was last read in this process.
    """

    file: str
    line: int
    """Number of the line in its file, from 1; of the row, where the file is not made of lines."""
    reason: str


class RowCheck:
    """Collects the broken rows of one reading of a split, and refuses too many of them.

        check = RowCheck(max_broken_share)
        for number, line in enumerate(file, 1):
            with check.row(path, number, f"{path}, line {number}"):
                rows.append(parse(line))
        check.finish()

    Every reader of rows uses it, so that a broken row is counted, named and refused in one way.

    Args:
      max_broken_share: largest share of broken rows that is accepted, from 0 (none) to below 1.

    Raises:
      UserError: the share is not such a number.
    """

    def __init__(self, max_broken_share: float = 0.0) -> None:
        self._most = checked_share(max_broken_share)
        self._read = 0
        self._broken: list[BrokenRow] = []
        self._messages: list[str] = []

    @property
    def broken(self) -> tuple[BrokenRow, ...]:
        """The broken rows so far, in the order of reading."""
        return tuple(self._broken)

    @contextlib.contextmanager
    def row(self, file: object, line: int, place: str) -> Iterator[None]:
        """Read one row in the block. A UserError in the block makes the row a broken one, and is not raised.

        Args:
          file: the row's file.
          line: number of the line or the row, from 1.
          place: the words with which the block's errors begin, such as "train.jsonl, line 3".
        """
        self._read += 1
        try:
            yield
        except UserError as error:
            message = str(error)
            reason = message.removeprefix(place).removeprefix(str(file)).lstrip(" ,:")
            self._broken.append(BrokenRow(str(file), line, reason))
            self._messages.append(message)

    def finish(self) -> None:
        """Refuse the reading if its share of broken rows is too large; else name them on standard error.

        Raises:
          UserError: the share is larger than `max_broken_share`, or no row is left.
        """
        count = len(self._broken)
        if not count:
            return
        if count > self._most * self._read or count == self._read:
            raise UserError(self._refusal())
        print(
            f"left out {count:,} of {self._read:,} rows, which are broken: {self._named()}", file=sys.stderr
        )

    def _refusal(self) -> str:
        count = len(self._broken)
        allowed = f"max_broken_share {self._most:g}"
        if count == 1:
            return self._messages[0] + (
                f" (1 of {counted(self._read, 'row')}; {allowed})" if self._most else ""
            )
        return f"{count:,} of {self._read:,} rows are broken ({allowed}): {self._named()}"

    def _named(self) -> str:
        others = len(self._broken) - _SHOWN
        return "; ".join(self._messages[:_SHOWN]) + (f"; and {others:,} more" if others > 0 else "")


@contextlib.contextmanager
def checking(check: RowCheck | None) -> Iterator[RowCheck]:
    """Give the block the check that a caller made and finishes, or one that accepts no broken row.

    Raises:
      UserError: no check was given, and the block met a broken row.
    """
    used = check or RowCheck()
    yield used
    if check is None:
        used.finish()


def checked_share(share: float) -> float:
    """Return a largest share of broken rows that a user gave.

    Raises:
      UserError: it is not from 0 to below 1.
    """
    if not 0 <= share < 1:
        raise UserError(f"max_broken_share is {share:g}; give a share of rows, from 0 to below 1")
    return share
