"""Puts all parameters of a run on the mesh: its backbone, another run's skills, and its checkpoint."""

import dataclasses
import os
from typing import Any

from etils import epath
from jax.sharding import Mesh

from poly_jax.data.task_table import TaskTable
from poly_jax.experiment import Experiment
from poly_jax.model.parameters import parameter_shapes
from poly_jax.model.transformer import Transformer
from poly_jax.training.backbone import RANDOM, load_backbone
from poly_jax.training.mesh import shardings
from poly_jax.training.open_run import OpenRun, open_run
from poly_jax.training.saved_step import Origin, read_onto
from poly_jax.weights.parameter_names import is_adapter_parameter
from poly_jax.weights.tree import flatten, merge, unflatten


@dataclasses.dataclass(frozen=True)
class Restored:
    """A model with all of its parameters.

    Attributes:
      model: the model in evaluation mode.
      parameters: the whole parameter tree, on the mesh.
      table: table of the tasks that its routers know.
      step: folder of the checkpoint.
      origin: the frozen weights that the checkpoint builds on.
    """

    model: Transformer
    parameters: dict[str, Any]
    table: TaskTable
    step: epath.Path
    origin: Origin


def restore(experiment: Experiment, run: str, mesh: Mesh) -> Restored:
    """Restore a run's model from its newest checkpoint: `open_run`, then `place`.

    Raises:
      UserError: `open_run` or `place` raises it.
    """
    return place(open_run(run, experiment), mesh)


def place(run: OpenRun, mesh: Mesh) -> Restored:
    """Read all parameters of a run onto the mesh, in the model's layout.

    Args:
      run: the opened run.
      mesh: the mesh that the parameters go to.

    Raises:
      UserError: something cannot be read, or the backbone is not the one that the run was trained on.
    """
    origin, parameters = run.origin, _read(run, mesh)
    if run.backbone_path is not None:
        backbone, digest = load_backbone(run.backbone_path, run.model, mesh)
        run.check_hash(digest)
        if digest != origin.backbone_hash:
            origin = dataclasses.replace(origin, backbone=absolute(run.backbone_path), backbone_hash=digest)
        parameters = merge(backbone, parameters)
    return Restored(run.model, parameters, run.table, run.step, origin)


def place_adapters(run: OpenRun, mesh: Mesh) -> Restored:
    """Read the routers and skills of a run onto the mesh, without reading a backbone."""
    return Restored(run.model, _read(run, mesh, adapters_only=True), run.table, run.step, run.origin)


def absolute(backbone: str) -> str:
    """Return the path of a backbone in the form that a checkpoint's origin keeps."""
    return backbone if backbone == RANDOM else os.fspath(epath.Path(backbone).expanduser().absolute())


def _read(run: OpenRun, mesh: Mesh, adapters_only: bool = False) -> dict[str, Any]:
    shapes, axes = parameter_shapes(run.model)
    wanted = {
        name: shape
        for name, shape in flatten(shapes).items()
        if name in run.trained and (is_adapter_parameter(name) or not adapters_only)
    }
    places = flatten(shardings(unflatten(wanted), axes, mesh))
    return unflatten(read_onto(run.trained, wanted, places))
