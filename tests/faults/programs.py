"""Starts poly-jax as real processes on a tiny model, so that tests can send them real signals."""

import contextlib
import dataclasses
import json
import os
import pathlib
import re
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

ROOT = pathlib.Path(__file__).resolve().parents[2]
# A test fails rather than waits longer. Programs start in some 15 s on an idle machine.
PATIENCE = 240

RECIPE = """
import two_tasks
train.experiment = @Experiment()
train.steps = 6
train.save_every = 2
train.report_every = 1
Optimizer.warmup_fraction = 0.0
evaluate.experiment = @Experiment()
evaluate.batch_size = 8
infer.experiment = @Experiment()
infer.batch_size = 8
adapt.experiment = @Experiment()
adapt.steps = 4
adapt.report_every = 1
adapt.save_every = 2
Decoding.max_length = 10
Experiment.backbone = 'random'
Data.mixture = 'two_tasks'
""" + (ROOT / "tests" / "tiny_run.gin").read_text()
# Background commands of a shell ignore SIGINT, and so would the programs.
PROGRAM = """
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)
import poly_jax.cli
poly_jax.cli.program()
"""


@dataclasses.dataclass
class Program:
    """A process of poly-jax and what it has written."""

    process: subprocess.Popen
    stdout: str = ""
    stderr: str = ""

    def __post_init__(self) -> None:
        self._threads = [
            threading.Thread(target=self._read, args=(name,), daemon=True) for name in ("stdout", "stderr")
        ]
        for thread in self._threads:
            thread.start()

    def _read(self, name: str) -> None:
        for line in getattr(self.process, name):
            setattr(self, name, getattr(self, name) + line)

    def wait_for(self, text: str, times: int = 1) -> None:
        """Wait until the process has written a text a number of times."""
        end = time.monotonic() + PATIENCE
        while (self.stdout + self.stderr).count(text) < times:
            ended = self.process.poll() is not None
            if ended and (self.stdout + self.stderr).count(text) < times:
                raise AssertionError(f"ended ({self.process.returncode}) without {text!r}: {self.stderr}")
            if time.monotonic() > end:
                raise AssertionError(f"no {text!r} in {PATIENCE} s: {self.stderr}")
            time.sleep(0.02)

    def wait_for_file(self, path: pathlib.Path) -> None:
        """Wait until a file exists."""
        end = time.monotonic() + PATIENCE
        while not path.exists():
            if self.process.poll() is not None or time.monotonic() > end:
                raise AssertionError(f"no {path}: {self.stderr}")
            time.sleep(0.02)

    def send(self, number: int) -> None:
        self.process.send_signal(number)

    def code(self, within: float = PATIENCE) -> int:
        """Wait for the end of the process and return its exit code."""
        code = self.process.wait(within)
        for thread in self._threads:
            thread.join(10)
        return code


def prepare(folder: pathlib.Path) -> None:
    """Write the recipe and its tasks into a folder, in which the programs are then run."""
    (folder / "run.gin").write_text(RECIPE)
    shutil.copy(pathlib.Path(__file__).with_name("two_tasks.py"), folder)


@contextlib.contextmanager
def started(folder: pathlib.Path, *words: str, **environment: str) -> Iterator[Program]:
    """Start a program in a folder; it is killed at the end of the block if it has not ended."""
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, *words],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu", **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
        text=True,
    )
    try:
        yield Program(process)
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


def ran(folder: pathlib.Path, *words: str, **environment: str) -> Program:
    """Run a program to its end."""
    with started(folder, *words, **environment) as program:
        program.code()
        return program


def train_words(run: str, *bindings: str) -> list[str]:
    return ["train", "--gin_file=run.gin", f"--output_dir={run}", *(f"--gin.{text}" for text in bindings)]


def on_hosts(folder: pathlib.Path, words: Sequence[str], count: int, **environment: str) -> list[Program]:
    """Run one program with several processes to its end, or until the patience is over."""
    with contextlib.ExitStack() as stack:
        programs = start_hosts(stack, folder, words, count, **environment)
        for program in programs:
            program.code()
    return programs


def start_hosts(
    stack: contextlib.ExitStack, folder: pathlib.Path, words: Sequence[str], count: int, **environment: str
) -> list[Program]:
    """Start one program with several processes, which end with the stack."""
    port = free_port()
    return [
        stack.enter_context(
            started(
                folder,
                *words,
                **{
                    "POLY_JAX_COORDINATOR": f"localhost:{port}",
                    "POLY_JAX_NUM_PROCESSES": str(count),
                    "POLY_JAX_PROCESS_ID": str(index),
                    **environment,
                },
            )
        )
        for index in range(count)
    ]


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("localhost", 0))
        return found.getsockname()[1]


def trained_arrays(run: pathlib.Path, step: int | None = None) -> dict[str, Any]:
    """All numbers of a checkpoint, trained and optimizer's, read by Orbax."""
    import jax
    import orbax.checkpoint as ocp

    steps = saved(run)
    place = (run / "checkpoints" / str(step or max(steps))).absolute()
    found = {}
    for item in ("trained", "optimizer"):
        # The run may have had more processes than this one, whose shardings say nothing here.
        with ocp.PyTreeCheckpointer() as reader:
            saved_tree = reader.metadata(place / item).item_metadata.tree
            kinds = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), saved_tree)
            tree = reader.restore(place / item, args=ocp.args.PyTreeRestore(restore_args=kinds))
        for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]:
            found[f"{item}/{jax.tree_util.keystr(path, simple=True, separator='/')}"] = leaf
    return found


def saved(run: pathlib.Path) -> set[int]:
    """Steps of the complete checkpoints of a run."""
    folder = run / "checkpoints"
    return (
        {int(path.name) for path in folder.iterdir() if path.name.isdecimal()} if folder.exists() else set()
    )


def metrics(run: pathlib.Path) -> list[dict[str, float]]:
    """Every line of metrics, in the order of the lines, without those that depend on the time."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in line.items() if not _TIMED.search(name)} for line in lines]


_TIMED = re.compile("per_second|^time/|^goodput$")


def losses(run: pathlib.Path) -> list[tuple[int, float]]:
    """The step and the loss of every report, in the order of the lines."""
    return [(line["step"], line["loss"]) for line in metrics(run) if "loss" in line]


def contents(path: pathlib.Path) -> dict[str, bytes]:
    """The files of a folder by their path in it, or the one file that the path is."""
    files = [path] if path.is_file() else sorted(file for file in path.rglob("*") if file.is_file())
    return {str(file.relative_to(path)): file.read_bytes() for file in files}
