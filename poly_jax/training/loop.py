"""The training loop: takes steps, reports metrics and saves checkpoints."""

import contextlib
import dataclasses
import time
from collections.abc import Callable, Mapping
from math import isfinite
from typing import Any

import jax
import numpy as np
from etils import epath
from jax.sharding import Mesh

from poly_jax.counted import counted
from poly_jax.data.task_table import TaskTable
from poly_jax.errors import UserError
from poly_jax.program_start import clock
from poly_jax.routing.task_ids import check_task_ids
from poly_jax.stopping import Deferral, Stopped, requested, stop
from poly_jax.training.batches import Batches, example_tasks
from poly_jax.training.checkpoints import KEEP, Checkpoints, explained
from poly_jax.training.checksums import checksums
from poly_jax.training.compiled_step import compiled_step
from poly_jax.training.finite_steps import NonFinite
from poly_jax.training.hosts import any_host
from poly_jax.training.memory import return_freed_memory
from poly_jax.training.mesh import on_mesh, to_mesh
from poly_jax.training.metrics import ScalarWriter, scalar_writer
from poly_jax.training.metrics_file import FILE as METRICS
from poly_jax.training.metrics_file import is_evaluated
from poly_jax.training.packed_routers import PackedRouters, packed_routers
from poly_jax.training.periodic_evaluation import PeriodicEvaluation, score_named
from poly_jax.training.positions import forget_positions, restore_position, save_position
from poly_jax.training.progress import Progress, compiling
from poly_jax.training.saved_steps import saved_steps
from poly_jax.training.start import Start, begin
from poly_jax.training.taken_steps import NotFiniteError, TakenSteps
from poly_jax.training.time_spent import TimeSpent
from poly_jax.training.update import TrainState, Update


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
      keep: number of newest checkpoints that are kept.
      keep_best: metric of the evaluation by which the best checkpoint is kept too, as `task/metric`.
      non_finite: event that follows a step whose loss or gradient is not finite.
      began: Unix time at which the program began to work on the run, in seconds; None for the call of `fit`.
    """

    folder: epath.Path
    table: TaskTable
    mesh: Mesh
    steps: int
    seed: int
    save_every: int
    report_every: int
    keep: int = KEEP
    keep_best: str | None = None
    non_finite: NonFinite = "stop"
    began: float | None = None


def fit(
    start: Start,
    update: Update,
    batches: Batches,
    run: Run,
    evaluation: PeriodicEvaluation | None = None,
) -> TrainState:
    """Train up to the run's last step, from its newest intact checkpoint if there is one.

    Args:
      start: the trained and the frozen tree before step 0, and their origin.
      update: the step function.
      batches: the stream at its start, which is then restored to the checkpoint's position.
      run: the run's folder, mesh and number of steps.
      evaluation: evaluation on the way, and how often it is made; None for none. It does not change what is
        trained.

    Returns:
      The final state.

    Raises:
      UserError: no checkpoint is intact, the disk is full, a step is not finite, or the run is longer than
        `run.steps` already.
      Stopped: a signal asked the program to end; the state after the last step is saved.
    """
    began = clock() if run.began is None else run.began
    state, folder = begin(start.trained, update, run.mesh), run.folder
    # The checkpoints are closed even if the run is interrupted, so that a write that has begun is completed.
    with Deferral() as deferral, _checkpoints(run) as checkpoints:
        restored = checkpoints.restore(
            state, run.table, also=lambda step: restore_position(folder, step, batches)
        )
        state = state if restored is None else restored
        first = int(state.step)
        if first > run.steps:
            raise UserError(
                f"{folder} has taken {counted(first, 'step')}, and this run is to end after {run.steps};"
                " give a larger"
                " number of steps, or another --output_dir"
            )
        if restored is not None:
            print(f"{folder}: resumes from step {first}")
        with contextlib.ExitStack() as closed:
            # The first process alone writes.
            writer = None if jax.process_index() else scalar_writer(folder, first)
            if writer is not None:
                closed.callback(_on_disk, folder, writer.close)
            spent = TimeSpent(None if jax.process_index() else folder, run.steps, first, began)
            if first < run.steps:
                # Nothing is counted where a command is repeated that is done.
                closed.enter_context(contextlib.closing(spent))
            packing = packed_routers(update, state, start.frozen)
            state = packing.pack(state)
            return _steps(
                state, start, packing, batches, run, evaluation, deferral, checkpoints, writer, spent
            )


def _on_disk(folder: epath.Path, write: Callable[..., None], *arguments: Any) -> None:
    """Write metrics; a full disk, for instance, is an error of one line."""
    with explained(folder, "the metrics"):
        write(*arguments)


def _checkpoints(run: Run) -> contextlib.closing[Checkpoints]:
    return contextlib.closing(Checkpoints(run.folder, run.keep, run.keep_best))


def _steps(
    state: TrainState,
    start: Start,
    packing: PackedRouters,
    batches: Batches,
    run: Run,
    evaluation: PeriodicEvaluation | None,
    deferral: Deferral,
    checkpoints: Checkpoints,
    writer: ScalarWriter | None,
    spent: TimeSpent,
) -> TrainState:
    """Take the remaining steps of a run from a packed state; return the state as checkpoints hold it."""
    first = saved = int(state.step)
    key = jax.random.key(run.seed)
    step_function = compiled_step(packing.update, run.non_finite, state, start.frozen)

    def log(step: int, scalars: Mapping[str, float]) -> None:
        if writer is not None:
            _on_disk(run.folder, writer.write, step, scalars)

    def save(value: float | None = None) -> int:
        """Save the state and the position; return the state's step."""
        step = int(state.step)
        save_position(run.folder, step, batches)
        checkpoints.save(packing.unpack(state), run.table, start.origin, value)
        # This checkpoint is written in the background. Until it is complete, an earlier one is the newest.
        forget_positions(run.folder, but={step, *checkpoints.steps()})
        return step

    def evaluate(evaluation: PeriodicEvaluation) -> Mapping[str, float]:
        """Evaluate the state; where a host is asked to stop, all hosts raise Stopped after the same batch."""

        def end_if_asked() -> None:
            if any_host(run.mesh, requested()):
                raise Stopped("an evaluation during training is left out")

        with deferral.paused() if jax.process_count() == 1 else contextlib.nullcontext():
            return evaluation.scores(packing.unpack(state).trained, start.frozen, end_if_asked)

    def value_of(scores: Mapping[str, float]) -> float | None:
        return None if run.keep_best is None else score_named(run.keep_best, scores)

    def log_evaluation(step: int, scores: Mapping[str, float]) -> None:
        log(step, {name: each for name, each in scores.items() if isfinite(each)})

    # A program that was stopped has saved its last step without the evaluation.
    if evaluation is not None and first and evaluation.is_due(first, run.steps):
        left_out = jax.process_index() == 0 and not is_evaluated(run.folder / METRICS, first)
        if any_host(run.mesh, left_out):
            scores = evaluate(evaluation)
            checkpoints.add_score(first, value_of(scores))
            log_evaluation(first, scores)
    progress = None
    taken = TakenSteps(run.non_finite)
    was_evaluated = False
    asked: Any = np.asarray(False)
    spent.add("start_up")
    if first < run.steps:
        spent.write()
    for step in range(first + 1, run.steps + 1):
        spent.begin_step(step)
        batch = next(batches)
        # No time is lost to data that is read while the devices work.
        spent.add("step" if taken.is_running() else "data_wait")
        check_task_ids(batch["task_ids"], len(run.table))
        with on_mesh(run.mesh), contextlib.nullcontext() if progress else compiling():
            placed = to_mesh(batch, run.mesh)
            if progress is None:
                # JAX keeps the program for the call. What its compilation freed need not lie beside the step.
                step_function.trace(state, start.frozen, placed, key, np.int32(step)).lower().compile()
                return_freed_memory()
            state, metrics = step_function(state, start.frozen, placed, key, np.int32(step))
            if progress is None:
                # The first step compiles, so the measured speed does not include it.
                jax.block_until_ready(metrics)
        if progress is None:
            # The programs that sum a checkpoint's arrays are compiled here, so that no save waits for that.
            saved_state = packing.unpack(state)
            checksums({"trained": saved_state.trained, "optimizer": saved_state.optimizer})
            del saved_state
            spent.add("compile")
            deferral.begin()
        # Hosts agree on a step to stop after. One host need not wait for the others' answers.
        asked_before, asked = asked, any_host(run.mesh, requested())
        stops = bool(asked if jax.process_count() == 1 else asked_before)
        if progress is None:
            progress = Progress(step, run.steps)
        else:
            progress.add(len(example_tasks(batch)) * len(placed["task_ids"]) // len(batch["task_ids"]))
        reports = step % run.report_every == 0 or step == run.steps
        saves = step % run.save_every == 0 or step == run.steps or stops
        due = evaluation is not None and evaluation.is_due(step, run.steps)
        evaluates = due and not stops
        try:
            # A step is waited for when the next one has begun, so that the devices always have work.
            taken.add(step, metrics, batch)
            taken.settle(but=0 if reports or saves or evaluates else 1)
        except NotFiniteError as found:
            if int(state.step) > saved:
                save()
            raise _diverged(found, run, int(state.step)) from None
        spent.add("step")
        if reports:
            log(step, {**progress.report(step, taken.means()), **spent.scalars()})
        value = None
        if evaluation is not None and evaluates:
            if not was_evaluated:
                # The first evaluation of a program is compiled, which no signal interrupts. A program that
                # is ended during that time goes on from here.
                saved, was_evaluated = save(), True
                spent.add("save_stall")
                spent.settle_step()
            # Other evaluations come before the checkpoint, so that a run which resumes from it has their
            # metrics.
            began = time.perf_counter()
            try:
                scores = evaluate(evaluation)
            except Stopped:
                # An evaluation may take long. The program that goes on from this step makes it again.
                stops = saves = True
            else:
                progress.leave_out(time.perf_counter() - began)
                try:
                    value = value_of(scores)
                except UserError:
                    if saved < step:
                        save()
                    raise
                if saved == step:
                    checkpoints.add_score(step, value)
                log_evaluation(step, scores)
                is_best = value is not None and checkpoints.is_best(value)
                saves |= bool(any_host(run.mesh, is_best))
            spent.add("evaluation")
        if saves and saved < step:
            saved = save(value)
            spent.add("save_stall")
            spent.settle_step()
        spent.write_sometimes()
        if stops and (due or step < run.steps):
            checkpoints.wait()
            spent.add("save_stall")
            raise stop(f"step {step} of {run.steps} is saved, and the same command goes on from there")
    checkpoints.wait()
    spent.add("save_stall")
    forget_positions(run.folder, but=saved_steps(run.folder))
    return packing.unpack(state)


def _diverged(found: NotFiniteError, run: Run, kept: int) -> UserError:
    names = [run.table.name(task) for task in found.tasks()]
    shown = ", ".join(names[:_SHOWN]) + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")
    after = (
        f"checkpoint {kept} has the last finite state, and the same command goes on from there with later"
        " batches"
        if kept
        else "no step was taken"
    )
    return UserError(
        f"step {found.step} is not finite ({found.described()}), with examples of {shown}; {after}; choose a"
        " smaller learning rate or clip gradients, or bind train.non_finite (of `adapt`: adapt.non_finite) ="
        " 'skip' to leave such steps out"
    )


_SHOWN = 10
