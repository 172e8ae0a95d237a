"""Prints the progress of a run to the terminal."""

import contextlib
import sys
import time
from collections.abc import Iterator


@contextlib.contextmanager
def compiling() -> Iterator[None]:
    """Print that the first step is being compiled, and afterwards how long this took."""
    print("compiling the training step ...", file=sys.stderr, flush=True)
    began = time.perf_counter()
    yield
    print(f"compiled, first step after {duration(time.perf_counter() - began)}", file=sys.stderr, flush=True)


class Progress:
    """Measures the speed between reports and prints a line for each report."""

    def __init__(self, first_step: int, last_step: int):
        self._last_step = last_step
        self._examples = 0
        self._step = first_step
        self._time = time.perf_counter()

    def add(self, examples: int) -> None:
        """Count the examples of a step."""
        self._examples += examples

    def leave_out(self, seconds: float) -> None:
        """Do not count this time, in which no step was taken, in the speed."""
        self._time += seconds

    def report(self, step: int, metrics: dict[str, float]) -> dict[str, float]:
        """Print `metrics` and the speed since the last report; return both."""
        now = time.perf_counter()
        seconds = max(now - self._time, 1e-9)
        rate, examples = (step - self._step) / seconds, self._examples / seconds
        self._step, self._time, self._examples = step, now, 0
        left = duration((self._last_step - step) / rate) if rate else "?"
        values = " ".join(f"{name} {value:.4f}" for name, value in metrics.items())
        print(
            f"step {step}/{self._last_step}  {values}  {rate:.2f} steps/s"
            f"  {examples:.1f} examples/s  {left} left",
            file=sys.stderr,
            flush=True,
        )
        return {**metrics, "steps_per_second": rate, "examples_per_second": examples}


def duration(seconds: float) -> str:
    """Return a duration as `minutes:seconds` or `hours:minutes:seconds`."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
