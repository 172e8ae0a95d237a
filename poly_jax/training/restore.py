"""A trained model as it was saved: backbone, frozen adapters and trained parameters put together again."""

import dataclasses
from collections.abc import Callable
from typing import Any

from etils import epath
from flax import traverse_util
from jax.sharding import Mesh

from poly_jax.data.task_table import TaskTable
from poly_jax.errors import UserError
from poly_jax.experiment import Experiment
from poly_jax.model.transformer import Transformer, parameter_shapes
from poly_jax.training.backbone import load_backbone
from poly_jax.training.checkpoints import (
    Origin,
    read_origin,
    read_table,
    read_trained,
    step_folder,
    trained_names,
)
from poly_jax.training.mesh import shardings
from poly_jax.training.skills_below import skills_below
from poly_jax.weights.parameter_names import is_adapter_parameter, is_skill
from poly_jax.weights.tree import merge, split


@dataclasses.dataclass(frozen=True)
class Restored:
    """A model with all of its parameters.

    Attributes:
      model: in evaluation mode.
      parameters: the whole tree, on the mesh.
      table: the tasks that its routers know.
      step: folder of the checkpoint.
      origin: what that checkpoint builds on.
    """

    model: Transformer
    parameters: dict[str, Any]
    table: TaskTable
    step: epath.Path
    origin: Origin


def restore(experiment: Experiment, run: str, mesh: Mesh) -> Restored:
    """The model of a run.

    Args:
      experiment: the run's, from its `config.gin`. Another path of the same backbone may be bound.
      run: the run's folder, for its newest checkpoint, or a step's folder.
      mesh: where the parameters go.

    Raises:
      UserError: no checkpoint there, one of another shape, or another backbone than it was trained on.
    """
    step = step_folder(run)
    table, origin = read_table(step), read_origin(step)
    model = experiment.transformer(table)
    parts = []
    if origin.backbone is not None:
        path = experiment.backbone or origin.backbone
        backbone, digest = load_backbone(path, model, mesh)
        if digest != origin.backbone_hash:
            raise UserError(
                f"{path} is not the backbone that {step} was trained on (their contents differ); bind"
                " Experiment.backbone to the right one"
            )
        parts.append(backbone)
    parts += [_below(origin, step, model, mesh), _read(step, model, mesh)]
    parameters = merge(*parts)
    shapes, _ = parameter_shapes(model)
    missing = set(_names(shapes)) - set(_names(parameters))
    if missing:
        raise UserError(f"{step} lacks {len(missing)} parameter(s) of this model, such as {min(missing)}")
    return Restored(model, parameters, table, step, origin)


def restore_adapters(experiment: Experiment, run: str, mesh: Mesh) -> Restored:
    """As `restore`, but the parameters are the routers and skills only, and no backbone is read."""
    step = step_folder(run)
    table, origin = read_table(step), read_origin(step)
    model = experiment.transformer(table)
    adapters = merge(_below(origin, step, model, mesh), _read(step, model, mesh, is_adapter_parameter))
    return Restored(model, adapters, table, step, origin)


def _below(origin: Origin, step: epath.Path, model: Transformer, mesh: Mesh) -> dict[str, Any]:
    """The skills that a checkpoint leaves as they are; nothing where it has its own."""
    below = skills_below(origin, step)
    return {} if below is None else _read(below, model, mesh, is_skill)


def _read(
    step: epath.Path, model: Transformer, mesh: Mesh, selected: Callable[[str], bool] = lambda name: True
) -> dict[str, Any]:
    """The selected parameters of a checkpoint's trained tree."""
    shapes, axes = parameter_shapes(model)
    names = set(filter(selected, trained_names(step)))
    wanted, _ = split(shapes, names.__contains__)
    return read_trained(step, wanted, shardings(wanted, axes, mesh), names)


def _names(tree: dict[str, Any]) -> list[str]:
    return list(traverse_util.flatten_dict(tree, sep="/"))
