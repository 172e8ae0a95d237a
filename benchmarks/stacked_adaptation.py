"""Compares adaptations that are stacked in one program with runs of `adapt` one after another in one process.

    python benchmarks/stacked_adaptation.py [--steps=100] [--seeds=1]

The adaptations are six held-out tasks of the embedded benchmark with each of the seeds, with MHR on the
benchmark's tiny T5. The script compares the wall-clock and the processor times of both ways, compilation
included, and how many examples a second a stack of all and a stack of one take in after their first steps. It
checks that the losses agree.
"""

import contextlib
import io
import json
import pathlib
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


def main() -> None:
    """Measure both ways."""
    reuse_memory()  # As the program does.
    parser = arguments(__doc__)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--seeds", type=int, default=1, help="number of seeds for each task")
    args = parser.parse_args()
    steps, seeds = args.steps, range(args.seeds)
    tasks = [registered_name(task.name) for task in benchmark().heldout[:6]]
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        loaded = Configuration(("recipes/skillbench/mhr.gin",), ("train.steps = 20",)).load()
        with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
            train(**loaded.arguments("train", output_dir=str(folder / "mhr")))
        times = [(time.perf_counter(), time.process_time())]
        together, speed = stacked(folder / "mhr", tasks, seeds, steps)
        times.append((time.perf_counter(), time.process_time()))
        with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
            apart = separately(folder / "mhr", tasks, seeds, steps)
        times.append((time.perf_counter(), time.process_time()))
        _, alone = stacked(folder / "mhr", tasks[:1], seeds[:1], steps)
    np.testing.assert_allclose(together, apart, atol=1e-3)
    count = len(tasks) * len(seeds)
    one, many = np.diff(times, axis=0)
    report(
        f"{count} adaptations of {steps} steps, compilation included",
        ["time", "stacked, s", "apart, s", "faster by"],
        [
            [kind, f"{together_s:.1f}", f"{apart_s:.1f}", f"{apart_s / together_s:.1f}"]
            for kind, together_s, apart_s in zip(("clock", "processors"), one, many, strict=True)
        ],
        {"stacked_s": list(one), "apart_s": list(many), "examples_per_s": [speed, alone]},
        args.json,
    )
    print(
        f"\n{speed:,.0f} examples/s together, {alone:,.0f} one at a time: {speed / alone:.1f} times as many"
    )


if __name__ == "__main__":
    main()
