"""Times programs in turn, and prints what was measured as a Markdown table and as a line of JSON."""

import argparse
import json
import pathlib
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from poly_jax.reporting.table import markdown_table


def arguments(description: str | None, rounds: int) -> argparse.ArgumentParser:
    """A parser with the flags that all benchmarks have."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=rounds, help=f"rounds that count (default: {rounds})")
    parser.add_argument("--json", help="file to which a line of JSON with the figures is added")
    return parser


def in_turn(
    programs: Mapping[str, Callable[[], float]], rounds: int
) -> tuple[dict[str, float], dict[str, float], dict[str, float]]:
    """Run every program once a round, so that what else the machine does falls on all of them alike.

    Returns:
      By program: seconds of the first run, which compiles; the median seconds of the later rounds; and the
      median of what a run returns over its seconds.
    """
    first, seconds, speeds = {}, {name: [] for name in programs}, {name: [] for name in programs}
    for number in range(rounds + 1):
        for name, program in programs.items():
            began = time.perf_counter()
            done = program()
            took = time.perf_counter() - began
            if number:
                seconds[name].append(took)
                speeds[name].append(done / took)
            else:
                first[name] = took
    return (
        first,
        {name: statistics.median(each) for name, each in seconds.items()},
        {name: statistics.median(each) for name, each in speeds.items()},
    )


def report(
    title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], figures: Any, file: str | None
) -> None:
    """Print the table under its title, and add the figures to the file of JSON lines where there is one."""
    print(f"### {title}\n\n{markdown_table(columns, rows)}", flush=True)
    if file:
        with pathlib.Path(file).open("a") as lines:
            lines.write(json.dumps({"title": title, "figures": figures}) + "\n")


def ratio(ours: float, theirs: float | None) -> str:
    """How many times faster `ours` seconds are than `theirs`; empty where there is nothing to compare."""
    return "" if theirs is None else f"{theirs / ours:.2f}"
