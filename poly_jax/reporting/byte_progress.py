"""A bar on the terminal that tells how much of a checkpoint has been read or written."""

from collections.abc import Iterator
from contextlib import contextmanager

from rich import progress as bars
from rich.console import Console

from poly_jax.weights.safetensors_writer import Advance


@contextmanager
def byte_progress(doing: str, total: int) -> Iterator[Advance]:
    """Shows the bar on standard error; inside, call what this yields with the bytes of every step done.

    Where a step fails no bar is left.

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
        try:
            yield lambda count: progress.advance(bar, count)
        except BaseException:
            # What went wrong is one line: a terminal's bar is wiped, elsewhere none is written.
            progress.live.transient = True
            progress.console.quiet = not progress.console.is_terminal
            raise
