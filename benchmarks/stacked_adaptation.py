"""Compares adaptations that are stacked in one program with adaptations one after another.

    python benchmarks/stacked_adaptation.py [--steps=100] [--seeds=11] [--rounds=3]

The adaptations are six held-out tasks of the embedded benchmark, with MHR on the benchmark's tiny T5: first
with one seed each, stacked and as calls of `adapt` in one process, whose losses must agree; then with all
seeds in one stack, beside the time that the command `poly-jax adapt` takes for one of them, with programs
that an earlier command has compiled. All times include compilation. The examples of a second do not: they
count what a stack takes in after its first two steps, and are medians of rounds in which each size of a stack
runs once.
"""

import contextlib
import io
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time

import numpy as np
from measuring import arguments, report

from poly_jax.cli.allocation import reuse_memory
from poly_jax.configuration import Configuration, Loaded
from poly_jax.data.task_table import TaskTable
from poly_jax.tasks.skillbench.compositions import benchmark
from poly_jax.tasks.skillbench.tasks import registered_name
from poly_jax.training.restore import restore
from poly_jax.training.train import train
from poly_jax.transfer.adapt import adapt, read_examples
from poly_jax.transfer.adaptation import Adaptation
from poly_jax.transfer.settings import adapting_settings
from poly_jax.transfer.stacked import adapt_many
from poly_jax.weights.parameter_names import is_adapter_parameter
from poly_jax.weights.tree import split

VARIANT = "mhr"


def load(run: pathlib.Path, steps: int) -> Loaded:
    """Load the run's configuration, with this number of adaptation steps."""
    bindings = (f"adapt.steps = {steps}", f"adapt.report_every = {steps}")
    return Configuration(bindings=bindings).load(run=str(run))


def separately(run: pathlib.Path, tasks: list[str], seeds: range, steps: int) -> np.ndarray:
    """Call `adapt` in a loop, and return the mean loss over all steps of each run."""
    losses = []
    for task in tasks:
        for seed in seeds:
            output = run.parent / f"{task}-{seed}"
            given = {
                "run": str(run),
                "task": task,
                "output_dir": str(output),
                "variant": VARIANT,
                "seed": seed,
            }
            adapt(**load(run, steps).arguments("adapt", **given))
            losses.append(json.loads((output / "metrics.jsonl").read_text().splitlines()[-1])["loss"])
    return np.array(losses)


def stacked(run: pathlib.Path, tasks: list[str], seeds: range, steps: int) -> tuple[np.ndarray, float]:
    """Make the same adaptations in one program, from restoring the run to the trained adapters.

    Returns the losses, and the examples of a second after the first two steps, which compile.
    """
    settings = adapting_settings(load(run, steps), VARIANT)
    source = restore(settings.experiment, str(run), settings.partitioning.mesh())
    cells = [(task, seed) for task in tasks for seed in seeds]
    ends: list[float] = []
    _, backbone = split(source.parameters, is_adapter_parameter)
    adaptations = [
        Adaptation(
            source.model,
            source.parameters,
            settings.variant,
            read_examples(settings.experiment, TaskTable.of(task), task, "train"),
            seed,
            steps,
            settings.optimizer,
        )
        for task, seed in cells
    ]
    stack = adapt_many(
        adaptations,
        backbone,
        batch_size=settings.batch_size,
        loss=settings.loss,
        advance=lambda: ends.append(time.perf_counter()),
    )
    # Steps are only handed over in the loop; all are done when the losses are there.
    later = (steps - 2) * len(cells) * settings.batch_size
    return stack.losses.mean(axis=0), later / (time.perf_counter() - ends[1])


def command_seconds(run: pathlib.Path, task: str, steps: int) -> float:
    """Seconds of the command `poly-jax adapt` for one task, when an equal one has compiled its programs."""
    environment = {**os.environ, "JAX_COMPILATION_CACHE_DIR": str(run.parent / "compiled")}
    for number in range(2):
        command = ["adapt", f"--run={run}", f"--task={task}", f"--output_dir={run.parent}/command-{number}"]
        began = time.perf_counter()
        subprocess.run(
            [sys.executable, "-m", "poly_jax.cli", *command, f"--gin.adapt.steps={steps}"],
            env=environment,
            capture_output=True,
            check=True,
        )
    return time.perf_counter() - began


def main() -> None:
    """Measure all ways."""
    reuse_memory()  # As the program does.
    parser = arguments(__doc__, rounds=3)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument(
        "--seeds", type=int, default=11, help="number of seeds for each task of a large stack"
    )
    args = parser.parse_args()
    steps, seeds = args.steps, range(args.seeds)
    tasks = [registered_name(task.name) for task in benchmark().heldout[:6]]
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        loaded = Configuration(("recipes/skillbench/mhr.gin",), ("train.steps = 20",)).load()
        with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
            train(**loaded.arguments("train", output_dir=str(folder / "mhr")))
        times = [(time.perf_counter(), time.process_time())]
        together, _ = stacked(folder / "mhr", tasks, seeds[:1], steps)
        times.append((time.perf_counter(), time.process_time()))
        with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
            apart = separately(folder / "mhr", tasks, seeds[:1], steps)
        times.append((time.perf_counter(), time.process_time()))
        # The first of the large stacks also compiles.
        speeds, large = [], []
        for _ in range(args.rounds):
            _, alone = stacked(folder / "mhr", tasks[:1], seeds[:1], steps)
            _, few = stacked(folder / "mhr", tasks, seeds[:1], steps)
            began = time.perf_counter()
            _, most = stacked(folder / "mhr", tasks, seeds, steps)
            large.append(time.perf_counter() - began)
            speeds.append((alone, few, most))
        alone, few, most = np.median(speeds, axis=0)
        command = command_seconds(folder / "mhr", tasks[0], steps)
    np.testing.assert_allclose(together, apart, atol=1e-3)
    count, many = len(tasks), len(tasks) * len(seeds)
    one, other = np.diff(times, axis=0)
    report(
        f"{count} adaptations of {steps} steps, stacked and one after another in one process",
        ["time", "stacked, s", "apart, s", "faster by"],
        [
            [kind, f"{together_s:.1f}", f"{apart_s:.1f}", f"{apart_s / together_s:.1f}"]
            for kind, together_s, apart_s in zip(("clock", "processors"), one, other, strict=True)
        ],
        {"stacked_s": list(one), "apart_s": list(other)},
        args.json,
    )
    report(
        f"{many} adaptations of {steps} steps",
        ["way", "clock, s", "examples/s, once compiled", "over one at a time"],
        [
            ["one stack", f"{large[0]:.1f}", f"{most:,.0f}", f"{most / alone:.1f}"],
            [f"{count} to a stack", "", f"{few:,.0f}", f"{few / alone:.1f}"],
            ["one at a time", "", f"{alone:,.0f}", ""],
            [f"`poly-jax adapt`, {many} x {command:.1f} s", f"{many * command:,.0f}", "", ""],
        ],
        {"stack_s": large, "command_s": command, "examples_per_s": speeds},
        args.json,
    )


if __name__ == "__main__":
    main()
