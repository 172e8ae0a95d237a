"""The training loop: takes steps, reports metrics and saves checkpoints."""

import contextlib
import dataclasses
import os
import re
import time
from collections.abc import Collection, Iterator
from typing import Any, Protocol, runtime_checkable

import jax
import numpy as np
from etils import epath
from jax.sharding import Mesh

from poly_jax.data.task_table import TaskTable
from poly_jax.routing.task_ids import check_task_ids
from poly_jax.training.checkpoints import Checkpoints
from poly_jax.training.mesh import on_mesh, to_mesh
from poly_jax.training.metrics import scalar_writer
from poly_jax.training.periodic_evaluation import PeriodicEvaluation
from poly_jax.training.progress import Progress, compiling
from poly_jax.training.start import Start, begin
from poly_jax.training.update import TrainState, Update


@runtime_checkable
class Batches(Protocol):
    """An endless stream of batches with a position that can be saved."""

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Return the stream itself."""
        ...

    def __next__(self) -> dict[str, Any]:
        """Return this host's rows of the next batch."""
        ...

    def save(self, filename: str | os.PathLike[str]) -> None:
        """Write the position to a file."""
        ...

    def restore(self, filename: str | os.PathLike[str]) -> None:
        """Go to a saved position."""
        ...


@dataclasses.dataclass(frozen=True)
class Run:
    """The folder, mesh and length of a run.

    Attributes:
      folder: the run's folder; it gets `checkpoints/`, `metrics.jsonl` and TensorBoard events.
      table: names of the task ids, saved with every checkpoint.
      mesh: the devices that the states live on.
      steps: number of steps of the whole run.
      seed: seed of dropout and sampling.
      save_every: number of steps between checkpoints; the last step is always saved.
      report_every: number of steps between reports; a report is a mean over the steps since the last one.
    """

    folder: epath.Path
    table: TaskTable
    mesh: Mesh
    steps: int
    seed: int
    save_every: int
    report_every: int


def fit(
    start: Start,
    update: Update,
    batches: Batches,
    run: Run,
    evaluation: PeriodicEvaluation | None = None,
) -> TrainState:
    """Train up to the run's last step, from its newest checkpoint if there is one.

    Args:
      start: the trained and the frozen tree before step 0, and their origin.
      update: the step function.
      batches: the stream at its start, which is then restored to the checkpoint's position.
      run: the run's folder, mesh and number of steps.
      evaluation: what is evaluated on the way, and how often; None for nothing. It does not change what is
        trained.

    Returns:
      The final state.
    """
    state, folder = begin(start.trained, update, run.mesh), run.folder
    # The checkpoints are closed even if the run is interrupted, so that a write that has begun is completed.
    with (
        contextlib.closing(Checkpoints(folder)) as checkpoints,
        contextlib.closing(scalar_writer(folder, checkpoints.latest_step() or 0)) as writer,
    ):
        saved = checkpoints.latest_step()
        if saved is not None:
            state = checkpoints.restore(state, run.table)
            batches.restore(_position(folder, saved))
            print(f"{folder}: resumes from step {saved}")
        first = int(state.step)
        key = jax.random.key(run.seed)
        # The state is donated: a step writes the new state into the memory of the old one.
        step_function = jax.jit(
            update, donate_argnums=0, out_shardings=(jax.tree.map(lambda x: x.sharding, state), None)
        )
        progress = None
        since_report: list[dict[str, jax.Array]] = []
        for step in range(first + 1, run.steps + 1):
            batch = next(batches)
            check_task_ids(batch["task_ids"], len(run.table))
            with on_mesh(run.mesh), contextlib.nullcontext() if progress else compiling():
                placed = to_mesh(batch, run.mesh)
                state, metrics = step_function(state, start.frozen, placed, key)
                if progress is None:
                    # The first step compiles, so the measured speed does not include it.
                    jax.block_until_ready(metrics)
            since_report.append(metrics)
            if progress is None:
                progress = Progress(step, run.steps)
            else:
                progress.add(_examples(batch) * len(placed["task_ids"]) // len(batch["task_ids"]))
            if step % run.report_every == 0 or step == run.steps:
                values = {name: float(np.mean([m[name] for m in since_report])) for name in metrics}
                since_report.clear()
                writer.write_scalars(step, progress.report(step, values))
                writer.flush()
            if evaluation is not None and evaluation.is_due(step, run.steps):
                # This comes before the checkpoint, so that a run which resumes from it has these metrics.
                began = time.perf_counter()
                writer.write_scalars(step, evaluation.scores(state.trained, start.frozen))
                writer.flush()
                progress.leave_out(time.perf_counter() - began)
            if step % run.save_every == 0 or step == run.steps:
                batches.save(_position(folder, step))
                checkpoints.save(state, run.table, start.origin)
                # This checkpoint is written in the background. Until it is complete, `saved` is the newest.
                _forget_positions(folder, but={step, saved})
                saved = step
    _forget_positions(folder, but={saved})
    return state


def _examples(batch: dict[str, np.ndarray]) -> int:
    """Number of examples in a host's batch, which are several to a row where rows are packed."""
    if "decoder_segment_ids" in batch:
        return int(batch["decoder_segment_ids"].max(axis=1).sum())
    return len(batch["task_ids"])


def _position(folder: epath.Path, step: int) -> epath.Path:
    positions = folder / "data"
    positions.mkdir(exist_ok=True)
    return positions / f"{step}-host{jax.process_index()}"


def _forget_positions(folder: epath.Path, but: Collection[int | None]) -> None:
    """Delete this host's positions of all other steps, because each may hold a shuffle buffer."""
    ours = re.compile(rf"(\d+)-host{jax.process_index()}(\..*)?")
    for path in (folder / "data").iterdir():
        match = ours.fullmatch(path.name)
        if match and int(match[1]) not in but:
            path.unlink()
