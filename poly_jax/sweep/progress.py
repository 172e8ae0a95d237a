"""The progress of a sweep, on standard error."""

import sys
from collections.abc import Sequence

from rich import progress as bars
from rich.console import Console

from poly_jax.reporting.results_file import Result
from poly_jax.sweep.adapted import Job


class SweepProgress:
    """A bar on standard error for each program, and a line for each adaptation that is scored."""

    def __init__(self, done: int, total: int):
        """Make the progress of a sweep of `total` adaptations, of which `done` already have a result."""
        columns = (bars.TextColumn("{task.description}"), bars.BarColumn(), bars.TimeRemainingColumn())
        self._bars = bars.Progress(*columns, console=Console(stderr=True))
        self._bar = self._bars.add_task("", total=0)
        self._done, self._total, self._labels = done, total, ""

    def __enter__(self) -> "SweepProgress":
        self._bars.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._bars.stop()

    def begin(self, jobs: Sequence[Job]) -> None:
        """Begin adaptations that share a program."""
        self._labels = ", ".join(dict.fromkeys(job.method.label for job in jobs))
        work = sum(job.steps + 1 for job in jobs)
        self._bars.reset(self._bar, total=work, description=self._description())

    def advance(self, work: int) -> None:
        """Add to the amount of work done: 1 for each step of an adaptation, and 1 for its evaluation."""
        self._bars.advance(self._bar, work)

    def finish(self, job: Job, result: Result) -> None:
        """Report an adaptation that has been scored."""
        self._done += 1
        self._bars.update(self._bar, description=self._description())
        shown = ", ".join(f"{name} {value:.1f}" for name, value in result["metrics"].items())
        place = f"{job.method.label}, {job.cell.column}, seed {job.cell.seed}"
        print(f"{place}: {shown}", file=sys.stderr, flush=True)

    def _description(self) -> str:
        return f"{self._done}/{self._total} adaptations, {self._labels}"
