"""One saved step of a run: what a checkpoint holds, and how it is read and checked."""

import dataclasses
import hashlib
import json
from collections.abc import Collection, Mapping
from typing import Any

import jax
import orbax.checkpoint as ocp
from etils import epath
from jax.sharding import Sharding

from poly_jax.data.task_table import TaskTable
from poly_jax.errors import UserError
from poly_jax.files.json_fields import Fields, check_items
from poly_jax.files.json_file import read_json
from poly_jax.files.whole_file import write_whole
from poly_jax.training.checksums import checksums, verified
from poly_jax.training.mesh import put
from poly_jax.training.retention import Score
from poly_jax.weights.t5x_manifest import orbax_arrays
from poly_jax.weights.tensors import Tensor, Tensors, read_each
from poly_jax.weights.tree import check_tree
from poly_jax.weights.zarr_arrays import AT_ONCE, open_arrays

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


def write_score(step: epath.Path, score: Score) -> None:
    """Add the metric of a complete checkpoint that was saved without it.

    Raises:
      UserError: the checkpoint is damaged, or the files cannot be written.
    """
    content = dataclasses.asdict(score)
    path = step / "checksums" / "metadata"
    # The checksum comes first: a checksum without a score is that of a program which ended here. Checkpoints
    # of earlier versions have no checksums.
    if path.exists():
        write_whole(path, json.dumps({**read_json(path, advice=_DAMAGED), "score": _digest(content)}))
    (step / "score").mkdir(exist_ok=True)
    write_whole(step / "score" / "metadata", json.dumps(content))


def open_trained(step: epath.Path) -> dict[str, Tensor]:
    """Open the parameters of a checkpoint's trained tree by '/'-joined path, without reading them.

    Raises, here and when a parameter is read:
      UserError: the checkpoint is incomplete or damaged.
    """
    return _open(step, "trained")


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


def read_tree(step: epath.Path, item: str, like: Any) -> Any:
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
        # Every complete checkpoint has the list of its items, which was written after them.
        manifest = step / "_CHECKPOINT_METADATA"
        listed = Fields(read_json(manifest, advice=_DAMAGED), manifest, _DAMAGED).inside("item_handlers")
        if "checksums" not in listed:
            listed.take("trained", object)
            return None
    return Fields(read_json(path, advice=_DAMAGED), path, _DAMAGED)


def _check_digest(step: epath.Path, item: str, content: Any) -> None:
    sums = _checksums(step)
    if sums is not None and sums.take(item, str) != _digest(content):
        raise UserError(f"{step / item / 'metadata'} has changed since it was saved; {_DAMAGED}")


def _digest(content: Any) -> str:
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()
