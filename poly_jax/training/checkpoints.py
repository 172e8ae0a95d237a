"""The checkpoints of a run: saved in the background, kept while they are wanted, restored if intact."""

import contextlib
import sys
from collections.abc import Callable, Iterator, Mapping

import jax
import numpy as np
import orbax.checkpoint as ocp
from etils import epath
from jax.sharding import Mesh, NamedSharding

from poly_jax.counted import counted
from poly_jax.data.task_table import TaskTable
from poly_jax.errors import UserError
from poly_jax.files.file_errors import file_error
from poly_jax.training.hosts import any_host, on_first_host
from poly_jax.training.mesh import put
from poly_jax.training.retention import NewestAndBest, Score
from poly_jax.training.saved_step import Origin, items, read_origin, read_table, read_tree, write_score
from poly_jax.training.saved_steps import FOLDER, saved_scores, saved_steps
from poly_jax.training.update import TrainState

DAMAGED = "damaged"
KEEP = 2
"""Number of newest checkpoints that a run keeps."""


class Checkpoints:
    """The checkpoints of one run folder, with one folder per saved step, written in the background.

    Each step holds the items `trained`, `optimizer`, `tasks` (names in the order of their ids), `origin` and
    `checksums`, which are compared with what is read.
    """

    def __init__(self, run: str | epath.Path, keep: int = KEEP, keep_best: str | None = None):
        """Open or create the checkpoints of a run folder.

        Args:
          run: folder of the run.
          keep: number of the newest checkpoints that are kept. Older ones are deleted.
          keep_best: metric by which the best checkpoint is kept too, as `task/metric`; None for no metric.
        """
        self._run = epath.Path(run).absolute()
        self._metric = keep_best
        folder = self._run / FOLDER
        with explained(self._run):
            folder.mkdir(parents=True, exist_ok=True)
            self._scores = saved_scores(self._run) if keep_best else {}
            options = ocp.CheckpointManagerOptions(
                preservation_policy=NewestAndBest(keep, keep_best, self._scores)
            )
            self._manager = ocp.CheckpointManager(folder, options=options)

    def latest_step(self) -> int | None:
        """Return the step of the newest complete checkpoint; None if there is no checkpoint."""
        return self._manager.latest_step()

    def steps(self) -> set[int]:
        """Return the steps of all complete checkpoints, and of one that is being written."""
        return set(self._manager.all_steps())

    def is_best(self, value: float) -> bool:
        """Whether a value of the metric `keep_best` is larger than that of every checkpoint."""
        return all(value > score.value for score in self._scores.values() if score.metric == self._metric)

    def save(self, state: TrainState, table: TaskTable, origin: Origin, value: float | None = None) -> None:
        """Start writing a checkpoint; the state may change as soon as this method returns.

        Args:
          state: the state.
          table: names of the tasks.
          origin: the frozen weights that the trained tree builds on.
          value: value of the metric `keep_best` at this step; None where it is not known.

        Raises:
          UserError: this checkpoint or the one before it cannot be written.
        """
        score = None
        if self._metric is not None and value is not None:
            score = self._scores[int(state.step)] = Score(self._metric, value)
        with explained(self._run):
            self._manager.save(
                int(state.step),
                args=items(state.trained, table, origin, score, optimizer=state.optimizer),
            )

    def add_score(self, step: int, value: float | None) -> None:
        """Add the value of the metric `keep_best` to a checkpoint that was saved before it was known.

        Args:
          step: step of the checkpoint, which may still be in the background.
          value: the value; None where it is not known.

        Raises:
          UserError: the checkpoint or its score cannot be written.
        """
        if self._metric is None or value is None:
            return
        score = self._scores[step] = Score(self._metric, value)
        with explained(self._run):
            self._manager.wait_until_finished()
            folder = epath.Path(self._manager.directory) / str(step)
            on_first_host(lambda: write_score(folder, score))

    def restore(
        self, state: TrainState, table: TaskTable, also: Callable[[int], None] = lambda step: None
    ) -> TrainState | None:
        """Read the newest intact checkpoint into a state with the structure and shardings of the given one.

        Newer checkpoints that are damaged are moved to the folder `damaged` of the run.

        Args:
          state: a state like the one that was saved.
          table: the task table of the run.
          also: restores what else the run needs at a step. A checkpoint counts as damaged where this raises a
            UserError.

        Returns:
          The state; None if there is no checkpoint.

        Raises:
          UserError: the checkpoints have another task table, or all are incomplete or damaged.
        """
        errors: dict[int, UserError] = {}
        mesh = _mesh(state)
        for number in sorted(self._manager.all_steps(), reverse=True):
            restored, error = None, None
            try:
                restored = self._read(number, state, table)
                also(number)
            except UserError as raised:
                error = raised
            # A file may be damaged for one host only, and all must go on from the same step. So every host
            # asks, also one that has no state.
            failed = bool(any_host(mesh, error is not None))
            if restored is not None and not failed:
                self._move_away(errors)
                return restored
            errors[number] = error or UserError(f"another host cannot read checkpoint {number}")
        if errors:
            raise errors[max(errors)]
        return None

    def _read(self, number: int, state: TrainState, table: TaskTable) -> TrainState:
        step = epath.Path(self._manager.directory) / str(number)
        names = read_table(step).names
        if names != table.names:
            raise UserError(
                f"the checkpoint of step {number} has {counted(len(names), 'task')}, and the mixture has"
                f" {counted(len(table), 'task')} that differ; a run cannot change its tasks, choose another"
                " --output_dir"
            )
        read_origin(step)
        restored = [read_tree(step, item, getattr(state, item)) for item in ("trained", "optimizer")]
        count = put(np.asarray(number, np.int32), state.step.sharding)
        return TrainState(count, *restored)

    def _move_away(self, errors: Mapping[int, UserError]) -> None:
        """Move damaged checkpoints out of the way of the run, which writes these steps again."""
        if not errors:
            return

        def move() -> None:
            place = self._run / DAMAGED
            place.mkdir(exist_ok=True)
            for number, error in errors.items():
                if (place / str(number)).exists():
                    (place / str(number)).rmtree()
                (epath.Path(self._manager.directory) / str(number)).rename(place / str(number))
                print(f"{error}\n{FOLDER}/{number} is moved to {place / str(number)}", file=sys.stderr)

        on_first_host(move)
        for number in errors:
            self._scores.pop(number, None)
        self._manager.reload()

    def wait(self) -> None:
        """Wait until everything is written.

        Raises:
          UserError: something cannot be written.
        """
        with explained(self._run):
            self._manager.wait_until_finished()

    def close(self) -> None:
        """Wait until everything is written, and end the threads that write.

        Raises:
          UserError: something cannot be written.
        """
        with explained(self._run):
            self._manager.wait_until_finished()
            self._manager.close()


def _mesh(state: TrainState) -> Mesh:
    sharding = state.step.sharding
    found = sharding.mesh if isinstance(sharding, NamedSharding) else None
    return found if isinstance(found, Mesh) else jax.make_mesh((1,), ("all",))


@contextlib.contextmanager
def explained(run: epath.Path, what: str = "a checkpoint") -> Iterator[None]:
    """Raise a UserError in place of an error of the file system, which the libraries wrap in many types.

    Args:
      run: folder of the run that is written to.
      what: name of the object that is written, for the message.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        reason = file_error(error)
        if reason is None:
            raise
        steps = saved_steps(run)
        kept = f"checkpoint {max(steps)} is intact; " if steps else ""
        raise UserError(
            f"{what} cannot be written to {run} ({reason}); {kept}make room or make the folder "
            "writable, and run the same command again"
        ) from error
