"""A bar on the terminal that shows how many of a number of items are done."""

from collections.abc import Callable
from contextlib import AbstractContextManager

from rich import progress as bars

from poly_jax.reporting.step_progress import step_progress


def item_progress(doing: str, total: int, unit: str) -> AbstractContextManager[Callable[[float], None]]:
    """Show a bar; inside, call what this yields with the items of every step, see `step_progress`.

    A step may be a part of an item.

    Args:
      doing: the work that goes on, such as "preparing".
      total: number of items.
      unit: name of the items, in the plural.
    """
    done = bars.TextColumn(f"{{task.completed:.0f}}/{{task.total}} {unit}")
    return step_progress(doing, total, done, bars.TimeElapsedColumn())
