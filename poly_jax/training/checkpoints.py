"""Checkpoints of a run: the trained tree, the optimizer's state, the task table, and what they build on."""

import dataclasses
import json
from collections.abc import Collection
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from etils import epath

from poly_jax.data.task_table import TaskTable
from poly_jax.errors import UserError
from poly_jax.training.update import TrainState
from poly_jax.weights.t5x_manifest import orbax_arrays
from poly_jax.weights.tensors import Tensor
from poly_jax.weights.tree import check_tree, flatten, unflatten
from poly_jax.weights.zarr_arrays import open_arrays

Tree = dict[str, Any]
FOLDER = "checkpoints"


@dataclasses.dataclass(frozen=True)
class Origin:
    """What a checkpoint's trained tree needs beside it.

    Attributes:
      backbone: path of the frozen backbone, or None where all of the model is in the checkpoint.
      backbone_hash: content hash of the backbone that the adapters were trained on.
      adapters: step folder of the checkpoint whose adapters stay frozen beneath this one's (MHR-z), or None.
      adapters_hash: content hash of those skills.
    """

    backbone: str | None = None
    backbone_hash: str | None = None
    adapters: str | None = None
    adapters_hash: str | None = None

    def without_adapters(self) -> "Origin":
        """That of a checkpoint with adapters of its own."""
        return dataclasses.replace(self, adapters=None, adapters_hash=None)


class Checkpoints:
    """The checkpoints of one run folder, one folder a step, written in the background.

    Each step holds the items `trained`, `optimizer`, `tasks` (names in the order of their ids) and `origin`.
    """

    def __init__(self, run: str | epath.Path, keep: int = 1):
        """Opens, or creates, the checkpoints of a run folder; all but the last `keep` are deleted."""
        folder = epath.Path(run).absolute() / FOLDER
        folder.mkdir(parents=True, exist_ok=True)
        self._manager = ocp.CheckpointManager(folder, options=ocp.CheckpointManagerOptions(max_to_keep=keep))

    def latest_step(self) -> int | None:
        """Step of the newest complete checkpoint."""
        return self._manager.latest_step()

    def save(self, state: TrainState, table: TaskTable, origin: Origin) -> None:
        """Starts writing a checkpoint; the state may change as soon as this returns."""
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
        """The newest checkpoint in place of a state of the same structure and shardings.

        Raises:
          UserError: its task table is another.
        """
        step = self.latest_step()
        names = read_table(epath.Path(self._manager.directory) / str(step)).names
        if names != table.names:
            raise UserError(
                f"the checkpoint of step {step} knows {len(names)} task(s), and the mixture has"
                f" {len(table)} others; a run cannot change its tasks, choose another --output_dir"
            )
        restored = self._manager.restore(
            step,
            args=ocp.args.Composite(
                trained=ocp.args.StandardRestore(jax.tree.map(_abstract, state.trained)),
                optimizer=ocp.args.StandardRestore(jax.tree.map(_abstract, state.optimizer)),
            ),
        )
        count = jax.device_put(np.asarray(step, np.int32), state.step.sharding)
        return TrainState(count, restored["trained"], restored["optimizer"])

    def close(self) -> None:
        """Waits until everything is written."""
        self._manager.wait_until_finished()
        self._manager.close()


def step_folder(run: str | epath.Path) -> epath.Path:
    """The checkpoint that a path stands for: a step's folder itself, or the newest of a run's folder.

    Raises:
      UserError: there is none.
    """
    path = epath.Path(run)
    if (path / "origin").is_dir():
        return path
    steps = saved_steps(path)
    if not steps:
        raise UserError(f"{run} holds no checkpoint; give the --output_dir of a run that has saved one")
    return path / FOLDER / str(max(steps))


def read_table(step: epath.Path) -> TaskTable:
    """The task table that a checkpoint was saved with."""
    return TaskTable(tuple(_read_json(step, "tasks")))


def read_origin(step: epath.Path) -> Origin:
    """What a checkpoint builds on."""
    return Origin(**_read_json(step, "origin"))


def _read_json(step: epath.Path, item: str) -> Any:
    return json.loads((step / item / "metadata").read_text())


def saved_steps(run: str | epath.Path) -> list[int]:
    """Steps of the complete checkpoints in a run's folder, in no order."""
    folder = epath.Path(run) / FOLDER
    return [int(child.name) for child in folder.iterdir() if child.name.isdigit()] if folder.is_dir() else []


def open_trained(step: epath.Path) -> dict[str, Tensor]:
    """The parameters of a checkpoint's trained tree by '/'-joined path, none of them read yet."""
    return open_arrays(orbax_arrays(step / "trained" / "_METADATA"))


def trained_names(step: epath.Path) -> list[str]:
    """Paths of the parameters in a checkpoint, '/'-joined."""
    return list(flatten(_metadata(step)))


def read_trained(step: epath.Path, shapes: Tree, placements: Tree, names: Collection[str]) -> Tree:
    """Parameters of a checkpoint's trained tree.

    Args:
      step: a step's folder.
      shapes: shape of every parameter that is wanted.
      placements: sharding of each.
      names: those of the checkpoint's parameters that must be wanted; the others are not read.

    Raises:
      UserError: parameters are missing, not wanted, or have other shapes.
    """
    there = {name: leaf for name, leaf in flatten(_metadata(step)).items() if name in names}
    check_tree(shapes, unflatten(there), step)
    target = jax.tree.map(
        lambda leaf, place: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place), shapes, placements
    )
    with ocp.PyTreeCheckpointer() as reader:
        args = ocp.args.PyTreeRestore(
            target, restore_args=ocp.checkpoint_utils.construct_restore_args(target), partial_restore=True
        )
        return reader.restore((step / "trained").absolute(), args=args)


def _metadata(step: epath.Path) -> Tree:
    with ocp.StandardCheckpointer() as reader:
        return reader.metadata((step / "trained").absolute()).item_metadata.tree


def _abstract(leaf: jax.Array) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding)
