"""Checkpoints of a run: the trained tree, the optimizer's state, the task table, and their origin."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from etils import epath
from jax.sharding import Sharding

from poly_jax.data.task_table import TaskTable
from poly_jax.errors import UserError
from poly_jax.files.json_fields import Fields, check_items
from poly_jax.files.json_file import read_json
from poly_jax.training.update import TrainState
from poly_jax.weights.t5x_manifest import orbax_arrays
from poly_jax.weights.tensors import Tensor, Tensors, read_each
from poly_jax.weights.tree import check_tree
from poly_jax.weights.zarr_arrays import AT_ONCE, open_arrays

FOLDER = "checkpoints"
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

    Each step holds the items `trained`, `optimizer`, `tasks` (names in the order of their ids) and `origin`.
    """

    def __init__(self, run: str | epath.Path, keep: int = 1):
        """Open or create the checkpoints of a run folder; all but the last `keep` are deleted."""
        folder = epath.Path(run).absolute() / FOLDER
        folder.mkdir(parents=True, exist_ok=True)
        self._manager = ocp.CheckpointManager(folder, options=ocp.CheckpointManagerOptions(max_to_keep=keep))

    def latest_step(self) -> int | None:
        """Return the step of the newest complete checkpoint; None if there is no checkpoint."""
        return self._manager.latest_step()

    def save(self, state: TrainState, table: TaskTable, origin: Origin) -> None:
        """Start writing a checkpoint; the state may change as soon as this method returns."""
        self._manager.save(
            int(state.step),
            args=ocp.args.Composite(
                trained=ocp.args.StandardSave(state.trained),
                optimizer=ocp.args.StandardSave(state.optimizer),
                tasks=ocp.args.JsonSave(list(table.names)),
                origin=ocp.args.JsonSave(dataclasses.asdict(origin)),
            ),
        )

    def restore(self, state: TrainState, table: TaskTable) -> TrainState:
        """Read the newest checkpoint into a state with the structure and shardings of the given one.

        Raises:
          UserError: the checkpoint has another task table, or is incomplete or damaged.
        """
        number = self.latest_step()
        step = epath.Path(self._manager.directory) / str(number)
        names = read_table(step).names
        if names != table.names:
            raise UserError(
                f"the checkpoint of step {number} has {len(names)} task(s), and the mixture has {len(table)}"
                " different task(s); a run cannot change its tasks, choose another --output_dir"
            )
        restored = [_restore(step, item, getattr(state, item)) for item in ("trained", "optimizer")]
        count = jax.device_put(np.asarray(number, np.int32), state.step.sharding)
        return TrainState(count, *restored)

    def close(self) -> None:
        """Wait until everything is written."""
        self._manager.wait_until_finished()
        self._manager.close()


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
        return TaskTable(tuple(names))
    except UserError as e:
        raise UserError(f"{path}: {e}; {_DAMAGED}") from None


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
    return Origin(**values)


def saved_steps(run: str | epath.Path) -> list[int]:
    """List the steps of the complete checkpoints in a run's folder, in any order."""
    folder = epath.Path(run) / FOLDER
    names = [child.name for child in folder.iterdir()] if folder.is_dir() else []
    return [int(name) for name in names if name.isdecimal()]


def open_trained(step: epath.Path) -> dict[str, Tensor]:
    """Open the parameters of a checkpoint's trained tree by '/'-joined path, without reading them.

    Raises:
      UserError: the checkpoint is incomplete or damaged.
    """
    return _open(step / "trained")


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
        name: jax.device_put(array.astype(shapes[name].dtype, copy=False), placements[name])
        for name, array in read_each(wanted, at_once=AT_ONCE)
    }


def _open(item: epath.Path) -> dict[str, Tensor]:
    return open_arrays(orbax_arrays(item / "_METADATA", _DAMAGED), _DAMAGED)


def _restore(step: epath.Path, item: str, like: Any) -> Any:
    """Read an item of a checkpoint as a tree with the structure, dtypes and shardings of `like`."""
    leaves, structure = jax.tree_util.tree_flatten_with_path(like)
    by_name = {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in leaves}
    tensors = _open(step / item)
    check_tree(by_name, tensors, step / item)
    placed = read_onto(tensors, by_name, {name: leaf.sharding for name, leaf in by_name.items()})
    return jax.tree.unflatten(structure, placed.values())
