"""A bar on the terminal that moves with the steps of one piece of work."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich import progress as bars
from rich.console import Console


@contextmanager
def step_progress(doing: str, total: int, *columns: bars.ProgressColumn) -> Iterator[Callable[[float], None]]:
    """Show a bar on standard error; inside, call what this yields with the size of every step.

    Where a step fails no bar is left.

    Args:
      doing: the work that goes on, such as "writing".
      total: size of all steps together.
      *columns: what stands behind the bar, before the remaining time.
    """
    shown = (bars.TextColumn("{task.description}"), bars.BarColumn(), *columns, bars.TimeRemainingColumn())
    with bars.Progress(*shown, console=Console(stderr=True)) as progress:
        bar = progress.add_task(doing, total=total)
        try:
            yield lambda count: progress.advance(bar, count)
        except BaseException:
            # What went wrong is one line: a terminal's bar is wiped, elsewhere none is written.
            progress.live.transient = True
            progress.console.quiet = not progress.console.is_terminal
            raise
