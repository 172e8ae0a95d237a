"""A bar on the terminal that tells how much of a checkpoint has been read or written."""

from collections.abc import Iterator
from contextlib import contextmanager

from rich import progress as bars
from rich.console import Console

from poly_jax.interop.safetensors_writer import Advance


@contextmanager
def byte_progress(doing: str, total: int) -> Iterator[Advance]:
    """Shows the bar on standard error; inside, call what this yields with the bytes of every step done.

    Args:
      doing: what goes on, such as "writing".
      total: bytes of all steps.
    """
    columns = (
        bars.TextColumn("{task.description}"),
        bars.BarColumn(),
        bars.DownloadColumn(),
        bars.TransferSpeedColumn(),
        bars.TimeRemainingColumn(),
    )
    with bars.Progress(*columns, console=Console(stderr=True)) as progress:
        bar = progress.add_task(doing, total=total)
        yield lambda count: progress.advance(bar, count)
