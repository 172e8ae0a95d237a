"""The progress of a sweep, on standard error."""

import sys

from rich import progress as bars
from rich.console import Console

from poly_jax.reporting.results_file import Result
from poly_jax.sweep.cells import Cell
from poly_jax.sweep.method import Method
from poly_jax.transfer.variants import find


class SweepProgress:
    """A bar on standard error for each method, and a line for each adaptation that is scored."""

    def __init__(self, done: int, total: int):
        """Make the progress of a sweep of `total` adaptations, of which `done` already have a result."""
        columns = (bars.TextColumn("{task.description}"), bars.BarColumn(), bars.TimeRemainingColumn())
        self._bars = bars.Progress(*columns, console=Console(stderr=True))
        self._bar = self._bars.add_task("", total=0)
        self._done, self._total = done, total

    def __enter__(self) -> "SweepProgress":
        self._bars.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._bars.stop()

    def begin(self, method: Method, steps: int, count: int) -> None:
        """Begin a method with `count` adaptations to do, of `steps` steps each."""
        work = (steps if find(method.variant).trains else 0) + 1
        self._bars.reset(self._bar, total=work * count, description=self._description(method))

    def advance(self, work: int) -> None:
        """Add to the amount of work done: 1 for each step of an adaptation, and 1 for its evaluation."""
        self._bars.advance(self._bar, work)

    def finish(self, method: Method, cell: Cell, result: Result) -> None:
        """Report an adaptation that has been scored."""
        self._done += 1
        self._bars.update(self._bar, description=self._description(method))
        shown = ", ".join(f"{name} {value:.1f}" for name, value in result["metrics"].items())
        print(f"{method.label}, {cell.column}, seed {cell.seed}: {shown}", file=sys.stderr, flush=True)

    def _description(self, method: Method) -> str:
        return f"{self._done}/{self._total} adaptations, {method.label}"
