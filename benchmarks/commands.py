"""Measures how long commands take, with and without programs that an earlier command has compiled.

    python benchmarks/commands.py

Trains MHR on the embedded benchmark for one step, evaluates it on a task, adapts it to a new task for one
step and answers a question, twice each: first with an empty cache of compiled programs, then with what the
first time left there.
"""

import os
import pathlib
import subprocess
import sys
import tempfile
import time

from measuring import arguments, report

from poly_jax.tasks.skillbench.compositions import benchmark
from poly_jax.tasks.skillbench.tasks import registered_name


def _seconds(environment: dict[str, str], *command: str) -> float:
    began = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "poly_jax.cli", *command], env=environment, capture_output=True, text=True
    )
    took = time.perf_counter() - began
    if done.returncode:
        sys.exit(f"poly-jax {' '.join(command)} failed: {done.stderr[-1000:]}")
    return took


def main() -> None:
    """Print the table."""
    args = arguments(__doc__).parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        environment = {**os.environ, "JAX_COMPILATION_CACHE_DIR": str(folder / "compiled")}
        train = ("train", "--gin_file=recipes/skillbench/mhr.gin", "--gin.train.steps=1")
        found: dict[str, list[float]] = {"--help": [_seconds(environment, "--help") for _ in range(2)]}
        found["train, one step"] = [
            _seconds(environment, *train, f"--output_dir={folder / place}") for place in ("one", "two")
        ]
        task = registered_name(benchmark().train[0].name)
        evaluate = ("eval", f"--run={folder / 'one'}", f"--mixture={task}")
        found["eval, one task"] = [
            _seconds(environment, *evaluate, f"--output_dir={folder / f'eval_{place}'}")
            for place in ("one", "two")
        ]
        new = registered_name(benchmark().heldout[0].name)
        adapt = ("adapt", f"--run={folder / 'one'}", f"--task={new}", "--gin.adapt.steps=1")
        found["adapt, one step"] = [
            _seconds(environment, *adapt, f"--output_dir={folder / f'adapt_{place}'}")
            for place in ("one", "two")
        ]
        (folder / "texts").write_text("a question\n")
        infer = ("infer", f"--run={folder / 'one'}", f"--task={task}", f"--input={folder / 'texts'}")
        found["infer, one text"] = [_seconds(environment, *infer) for _ in range(2)]
    report(
        "Commands, from start to end",
        ["command", "first time, s", "again, s", "faster by"],
        [
            [name, f"{first:.1f}", f"{again:.1f}", f"{first / again:.1f}"]
            for name, (first, again) in found.items()
        ],
        {"seconds": found},
        args.json,
    )


if __name__ == "__main__":
    main()
