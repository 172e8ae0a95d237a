"""Rows of a task's files that cannot be read: where they are and what is wrong with them."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class BrokenRow:
    """A row that its reader dropped.

    A seqio data source that drops rows has a method `broken_rows(split)`. It returns a tuple of the rows that
    were dropped when the source was last read in this process.
    """

    file: str
    line: int
    """Number of the line in its file, from 1."""
    reason: str
