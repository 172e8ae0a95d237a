"""Times programs in turn, and prints what was measured as a Markdown table and as a line of JSON."""

import argparse
import json
import pathlib
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from poly_jax.reporting.table import markdown_table


def arguments(description: str | None, rounds: int | None = None) -> argparse.ArgumentParser:
    """A parser with the flags that all benchmarks have; `--rounds` only where there is a default for it."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    if rounds is not None:
        parser.add_argument(
            "--rounds", type=int, default=rounds, help=f"rounds that count (default: {rounds})"
        )
    parser.add_argument("--json", help="file to which a line of JSON with the figures is added")
    return parser


def model_arguments(description: str | None, rounds: int | None = None) -> argparse.ArgumentParser:
    """The same parser, with the flags for a model and the shape of its inputs."""
    parser = arguments(description, rounds)
    parser.add_argument("--model", default="t5_1_1_small", help="file of gin/models")
    parser.add_argument("--batch_size", type=int, default=8)
    parser.add_argument("--inputs", type=int, default=128, help="tokens of an input")
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


def report_speeds(
    title: str, unit: str, speeds: dict[str, float], first: dict[str, float], file: str | None
) -> None:
    """Report speeds in a unit such as tokens/s, and the first program's speed over that of each."""
    leading = next(iter(speeds))
    report(
        title,
        ["program", unit, f"{leading} is faster by", "first run, s"],
        [
            [name, f"{speed:,.0f}", f"{speeds[leading] / speed:.2f}", f"{first[name]:.1f}"]
            for name, speed in speeds.items()
        ],
        {"speeds": speeds, "first_s": first},
        file,
    )
