"""The tables and the picture of the study of heads."""

from collections.abc import Sequence

from etils import epath


def write_summary(folder: epath.Path, seeds: Sequence[int]) -> None:
    """Write `summary.md` and `heads.png`."""
