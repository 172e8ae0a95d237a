"""A bar on the terminal that tells how many of a number of items are done."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich import progress as bars
from rich.console import Console


@contextmanager
def item_progress(doing: str, total: int, unit: str) -> Iterator[Callable[[float], None]]:
    """Show a bar on standard error; inside, call what this yields with the items of every step.

    A step may be a part of an item. Where a step fails no bar is left.

    Args:
      doing: what goes on, such as "preparing".
      total: number of items.
      unit: name of the items, in the plural.
    """
    columns = (
        bars.TextColumn("{task.description}"),
        bars.BarColumn(),
        bars.TextColumn(f"{{task.completed:.0f}}/{{task.total}} {unit}"),
        bars.TimeElapsedColumn(),
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
