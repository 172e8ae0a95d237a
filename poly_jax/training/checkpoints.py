"""Checkpoints of a run: the trained tree, the optimizer's state, the task table, and their origin."""

import contextlib
import dataclasses
import hashlib
import json
import sys
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from etils import epath
from jax.sharding import Mesh, NamedSharding, Sharding

from poly_jax.data.task_table import TaskTable
from poly_jax.errors import UserError
from poly_jax.files.file_errors import file_error
from poly_jax.files.json_fields import Fields, check_items
from poly_jax.files.json_file import read_json
from poly_jax.training.checksums import checksums, verified
from poly_jax.training.hosts import any_host, on_first_host
from poly_jax.training.mesh import put
from poly_jax.training.retention import NewestAndBest, Score, best_step
from poly_jax.training.update import TrainState
from poly_jax.weights.t5x_manifest import orbax_arrays
from poly_jax.weights.tensors import Tensor, Tensors, read_each
from poly_jax.weights.tree import check_tree
from poly_jax.weights.zarr_arrays import AT_ONCE, open_arrays

FOLDER = "checkpoints"
DAMAGED = "damaged"
KEEP = 2
"""Number of newest checkpoints that a run keeps."""

_DAMAGED = "the step's folder is incomplete or damaged: copy it again, or give an earlier step"


@dataclasses.dataclass(frozen=True)
class Origin:
    """The frozen weights that a checkpoint's trained tree builds on, which the checkpoint does not hold.

    Attributes:
      backbone: path of the frozen backbone, or None where the checkpoint holds the whole model.
      backbone_hash: content hash of the backbone that the adapters were trained on.
      adapters: step folder of the checkpoint whose skills this one uses frozen (MHR-z), or None.
      adapters_hash: content hash of those skills.
    """

    backbone: str | None = None
    backbone_hash: str | None = None
    adapters: str | None = None
    adapters_hash: str | None = None

    def without_adapters(self) -> "Origin":
        """Return the origin of a checkpoint that has its own adapters."""
        return dataclasses.replace(self, adapters=None, adapters_hash=None)


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
            # A file may be damaged for one host only, and all must go on from the same step.
            if restored is not None and not bool(any_host(mesh, error is not None)):
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
                f"the checkpoint of step {number} has {len(names)} task(s), and the mixture has {len(table)}"
                " different task(s); a run cannot change its tasks, choose another --output_dir"
            )
        read_origin(step)
        restored = [_restore(step, item, getattr(state, item)) for item in ("trained", "optimizer")]
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


def items(
    trained: Any, table: TaskTable, origin: Origin, score: Score | None = None, **more: Any
) -> ocp.args.Composite:
    """Return the items of a checkpoint, with their checksums.

    Args:
      trained: the trained tree.
      table: names of the tasks.
      origin: the frozen weights that the trained tree builds on.
      score: the metric by which the best checkpoint is kept; None where it is not known.
      **more: other trees of arrays by the names of their items.
    """
    trees = {"trained": trained, **more}
    texts: dict[str, Any] = {"tasks": list(table.names), "origin": dataclasses.asdict(origin)}
    if score is not None:
        texts["score"] = dataclasses.asdict(score)
    sums = {name: checksums(tree) for name, tree in trees.items()}
    digests = {name: _digest(content) for name, content in texts.items()}
    return ocp.args.Composite(
        **{name: ocp.args.StandardSave(tree) for name, tree in trees.items()},
        **{name: ocp.args.JsonSave(content) for name, content in texts.items()},
        checksums=ocp.args.JsonSave({**sums, **digests}),
    )


def step_folder(run: str | epath.Path) -> epath.Path:
    """Find the checkpoint that a path stands for: a step's folder, or the newest step of a run's folder.

    Raises:
      UserError: there is no checkpoint.
    """
    path = epath.Path(run)
    if (path / "origin").is_dir():
        return path
    steps = saved_steps(path)
    if not steps:
        raise UserError(f"{run} holds no checkpoint; give the --output_dir of a run that has saved one")
    return path / FOLDER / str(max(steps))


def read_table(step: epath.Path) -> TaskTable:
    """Read the task table that a checkpoint was saved with.

    Raises:
      UserError: the checkpoint is incomplete or damaged.
    """
    path = step / "tasks" / "metadata"
    names = read_json(path, list, advice=_DAMAGED)
    check_items(names, str, path, _DAMAGED)
    try:
        table = TaskTable(tuple(names))
    except UserError as e:
        raise UserError(f"{path}: {e}; {_DAMAGED}") from None
    _check_digest(step, "tasks", names)
    return table


def read_origin(step: epath.Path) -> Origin:
    """Read the origin of a checkpoint.

    Raises:
      UserError: the checkpoint is incomplete or damaged.
    """
    path = step / "origin" / "metadata"
    fields = Fields(read_json(path, advice=_DAMAGED), path, _DAMAGED)
    names = [field.name for field in dataclasses.fields(Origin)]
    fields.check_known(names)
    values = {name: fields.take(name, str, default=None) for name in names}
    for name, value in values.items():
        if value is not None and not value.isprintable():
            raise UserError(f"{path}: {name} is {value!a}, which is not a path or a hash; {_DAMAGED}")
    origin = Origin(**values)
    _check_digest(step, "origin", dataclasses.asdict(origin))
    return origin


def read_score(step: epath.Path) -> Score | None:
    """Read the metric that a checkpoint was saved with; None where it has none.

    Raises:
      UserError: the checkpoint is damaged.
    """
    path = step / "score" / "metadata"
    if not path.exists():
        return None
    fields = Fields(read_json(path, advice=_DAMAGED), path, _DAMAGED)
    score = Score(fields.take("metric", str), fields.take("value", float))
    _check_digest(step, "score", dataclasses.asdict(score))
    return score


def saved_scores(run: str | epath.Path) -> dict[int, Score]:
    """Read the metrics that the checkpoints of a run were saved with, by step; damaged ones are left out."""
    found = {}
    for number in saved_steps(run):
        with contextlib.suppress(UserError):
            score = read_score(epath.Path(run) / FOLDER / str(number))
            if score is not None:
                found[number] = score
    return found


def best_checkpoint(run: str | epath.Path, metric: str) -> tuple[epath.Path, Score] | None:
    """Find the checkpoint of a run that is best by a metric, and its score; None where none has a score."""
    scores = saved_scores(run)
    step = best_step(scores, metric)
    return None if step is None else (epath.Path(run) / FOLDER / str(step), scores[step])


def saved_steps(run: str | epath.Path) -> list[int]:
    """List the steps of the complete checkpoints in a run's folder, in any order."""
    folder = epath.Path(run) / FOLDER
    names = [child.name for child in folder.iterdir()] if folder.is_dir() else []
    return [int(name) for name in names if name.isdecimal()]


def open_trained(step: epath.Path) -> dict[str, Tensor]:
    """Open the parameters of a checkpoint's trained tree by '/'-joined path, without reading them.

    Raises, here and when a parameter is read:
      UserError: the checkpoint is incomplete or damaged.
    """
    return _open(step, "trained")


def beside(step: epath.Path) -> str:
    """Say which other checkpoint of the same run is intact, as the end of an error; "" where there is none.

    Args:
      step: folder of a damaged checkpoint.
    """
    folder = step.parent
    names = [child.name for child in folder.iterdir()] if folder.name == FOLDER and folder.is_dir() else []
    for number in sorted((int(name) for name in names if name.isdecimal()), reverse=True):
        other = folder / str(number)
        if other != step and damage(other, ["trained"]) is None:
            return f"; {other} is intact"
    return ""


def damage(step: epath.Path, trees: Collection[str] = ("trained", "optimizer")) -> str | None:
    """Read a checkpoint and compare it with its checksums.

    Args:
      step: folder of the checkpoint.
      trees: items of arrays that are read, where the checkpoint has them.

    Returns:
      What is damaged, as a text for people; None where the checkpoint is intact.
    """
    try:
        read_table(step)
        read_origin(step)
        read_score(step)
        # A run that was imported has no optimizer, but every run has parameters.
        for item in (item for item in trees if item == "trained" or _has(step, item)):
            for tensor in _open(step, item).values():
                tensor.load()
    except UserError as error:
        return str(error)
    return None


def _has(step: epath.Path, item: str) -> bool:
    """Whether a checkpoint was saved with an item, even where the item is missing now."""
    sums = _checksums(step)
    return (step / item).exists() or (sums is not None and item in sums)


def read_onto(
    tensors: Tensors, shapes: Mapping[str, jax.ShapeDtypeStruct], placements: Mapping[str, Sharding]
) -> dict[str, jax.Array]:
    """Read tensors onto the mesh, one after another.

    Args:
      tensors: the stored tensors.
      shapes: shape and dtype of every array to read, by its name in `tensors`.
      placements: the sharding of each array.
    """
    wanted = {name: tensors[name] for name in shapes}
    return {
        name: put(array.astype(shapes[name].dtype, copy=False), placements[name])
        for name, array in read_each(wanted, at_once=AT_ONCE)
    }


def _open(step: epath.Path, item: str) -> dict[str, Tensor]:
    tensors = open_arrays(orbax_arrays(step / item / "_METADATA", _DAMAGED), _DAMAGED)
    sums = _checksums(step)
    return verified(tensors, None if sums is None else sums.inside(item), step / item, _DAMAGED)


def _restore(step: epath.Path, item: str, like: Any) -> Any:
    """Read an item of a checkpoint as a tree with the structure, dtypes and shardings of `like`."""
    leaves, structure = jax.tree_util.tree_flatten_with_path(like)
    by_name = {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in leaves}
    tensors = _open(step, item)
    check_tree(by_name, tensors, step / item)
    placed = read_onto(tensors, by_name, {name: leaf.sharding for name, leaf in by_name.items()})
    return jax.tree.unflatten(structure, placed.values())


def _checksums(step: epath.Path) -> Fields | None:
    """Read the checksums of a checkpoint; None where it was saved before checkpoints had any."""
    path = step / "checksums" / "metadata"
    if not path.exists():
        manifest = step / "_CHECKPOINT_METADATA"
        known = read_json(manifest, advice=_DAMAGED) if manifest.exists() else {}
        if "checksums" not in (known.get("item_handlers") or {}):
            return None
    return Fields(read_json(path, advice=_DAMAGED), path, _DAMAGED)


def _check_digest(step: epath.Path, item: str, content: Any) -> None:
    sums = _checksums(step)
    if sums is not None and sums.take(item, str) != _digest(content):
        raise UserError(f"{step / item / 'metadata'} has changed since it was saved; {_DAMAGED}")


def _digest(content: Any) -> str:
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def _mesh(state: TrainState) -> Mesh:
    sharding = state.step.sharding
    found = sharding.mesh if isinstance(sharding, NamedSharding) else None
    return found if isinstance(found, Mesh) else jax.make_mesh((1,), ("all",))


@contextlib.contextmanager
def explained(run: epath.Path, what: str = "a checkpoint") -> Iterator[None]:
    """Raise a UserError in place of an error of the file system, which the libraries wrap in many types.

    Args:
      run: folder of the run that is written to.
      what: what is written, for the message.
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
