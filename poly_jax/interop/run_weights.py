"""A run's parameters: adapters are read, and the backbone's tensors wait where they are stored."""

import dataclasses

import jax
import numpy as np
from etils import epath

from poly_jax.adapters.config import Adapters
from poly_jax.data.task_table import TaskTable
from poly_jax.errors import UserError
from poly_jax.experiment import Experiment
from poly_jax.model.config import T5Config
from poly_jax.model.transformer import Transformer, parameter_shapes
from poly_jax.reporting.byte_progress import byte_progress
from poly_jax.training.backbone import RANDOM, load_backbone
from poly_jax.training.checkpoints import Origin, open_trained, read_origin, read_table, step_folder
from poly_jax.training.mesh import Partitioning
from poly_jax.training.skills_below import skills_below
from poly_jax.weights.backbone import open_backbone
from poly_jax.weights.content_hash import content_hash
from poly_jax.weights.layer_trees import unstack_layers
from poly_jax.weights.layers_apart import layers_apart
from poly_jax.weights.parameter_names import is_adapter_parameter, is_skill, selects
from poly_jax.weights.t5_shapes import parameter_shapes as backbone_shapes
from poly_jax.weights.tensors import Tensor, of_tree, total_bytes
from poly_jax.weights.tree import check_tree, flatten


@dataclasses.dataclass(frozen=True)
class RunWeights:
    """A run's newest checkpoint and what it builds on, with layers apart.

    Attributes:
      config: shape of the T5.
      adapters: the inventory and its router; None for a bare T5.
      table: tasks of the routers.
      backbone: its tensors by T5X's names, not yet read.
      skills: arrays of skills and routers by '/'-joined name.
      origin: what the checkpoint builds on.
      step: of the checkpoint.
    """

    config: T5Config
    adapters: Adapters | None
    table: TaskTable
    backbone: dict[str, Tensor]
    skills: dict[str, np.ndarray]
    origin: Origin
    step: int


def open_run(run: str, experiment: Experiment, with_backbone: bool = True) -> RunWeights:
    """The weights of a run.

    Args:
      run: folder of the run, for its newest checkpoint, or a step's folder.
      experiment: that of the run. Another path of the same backbone may be bound.
      with_backbone: whether a frozen backbone is looked for, and read once to see that it is the right one.

    Raises:
      UserError: no checkpoint there, one of another shape, or another backbone than it was trained on.
    """
    step = step_folder(run)
    table, origin = read_table(step), read_origin(step)
    model = experiment.transformer(table)
    shapes = flatten(parameter_shapes(model)[0])
    trained = open_trained(step)
    below = skills_below(origin, step)
    if below is not None:
        skills = {name: tensor for name, tensor in open_trained(below).items() if is_skill(name)}
        trained = {**skills, **trained}
    own = selects("all" if origin.backbone is None else "adapters")
    expected = {name: shape for name, shape in shapes.items() if own(name)}
    check_tree(expected, trained, step)
    # This project's own runs stack layers on the first axis.
    apart = layers_apart(trained, step, axis=0)
    adapters = {name: tensor.load() for name, tensor in apart.items() if is_adapter_parameter(name)}
    if origin.backbone is None:
        backbone = {name: tensor for name, tensor in apart.items() if not is_adapter_parameter(name)}
    elif not with_backbone:
        backbone = {}
    else:
        backbone = _checked_backbone(experiment.backbone or origin.backbone, origin, model.config, step)
    number = int(step.name) if step.name.isdigit() else 0
    return RunWeights(model.config, model.adapters, table, backbone, adapters, origin, number)


def _checked_backbone(path: str, origin: Origin, config: T5Config, step: epath.Path) -> dict[str, Tensor]:
    if path == RANDOM:
        tree, digest = load_backbone(RANDOM, Transformer(config), Partitioning().mesh())
        tensors = of_tree(unstack_layers(jax.device_get(tree)))
    else:
        tensors = open_backbone(path).tensors
        check_tree(backbone_shapes(config), tensors, path)
        with byte_progress("checking the backbone", total_bytes(tensors.values())) as advance:
            digest = content_hash(tensors, advance)
    if digest != origin.backbone_hash:
        raise UserError(
            f"{path} is not the backbone that {step} was trained on (their contents differ); bind"
            " Experiment.backbone to the right one"
        )
    return tensors
