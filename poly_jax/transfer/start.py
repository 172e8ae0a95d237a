"""The state of an adaptation before its first step: its model, its trained tree and its frozen tree."""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from poly_jax.data.task_table import TaskTable
from poly_jax.errors import UserError
from poly_jax.experiment import Experiment
from poly_jax.model.loss import Loss
from poly_jax.model.transformer import Transformer
from poly_jax.training.backbone import load_backbone
from poly_jax.training.fresh import fresh_parameters
from poly_jax.training.guards import check_floats
from poly_jax.training.mesh import on_mesh
from poly_jax.training.restore import Restored
from poly_jax.training.saved_step import Origin
from poly_jax.training.skills_below import on_skills_of
from poly_jax.training.start import Start
from poly_jax.transfer.choose_combinations import choose_combinations
from poly_jax.transfer.combination import Combination
from poly_jax.transfer.new_adapters import initial_parameters, new_adapters
from poly_jax.transfer.rows import averaged_rows
from poly_jax.transfer.variants import Variant
from poly_jax.weights.parameter_names import is_adapter_parameter, selects
from poly_jax.weights.tree import merge, split

Tree = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class AdaptationStart(Start):
    """An adaptation before its first step.

    Attributes:
      combination: the combination of skills, if the variant chose one.
    """

    combination: Combination | None = None


def start_from(
    source: Restored,
    variant: Variant,
    table: TaskTable,
    seed: int,
    mesh: Mesh,
    *,
    experiment: Experiment,
    loss: Loss,
    batch_size: int,
    examples: Mapping[str, np.ndarray] | None = None,
    old_tasks: Sequence[str] = (),
) -> AdaptationStart:
    """Make the start of adapting a run to the tasks of a table.

    Args:
      source: the run.
      variant: the way to adapt.
      table: the new tasks.
      seed: seed of the fresh parameters and of the choice of skills.
      mesh: the devices that hold the parameters.
      experiment: the run's experiment.
      loss: the loss by which a variant that chooses skills compares combinations.
      batch_size: number of examples that the comparison computes at once.
      examples: the examples of the comparison; None if there are too many to keep in memory.
      old_tasks: tasks of the run whose rows are averaged to start the new rows; empty for fresh rows.

    Raises:
      UserError: the variant does not fit the run, or one of the old tasks or the examples are missing.
    """
    adapters = new_adapters(variant, source.model.adapters, len(table))
    if adapters is None:
        check_old_tasks(variant, old_tasks)
        return AdaptationStart(
            Transformer(source.model.config), backbone_in_float32(source, experiment, mesh), {}, Origin()
        )
    assert source.model.adapters is not None
    if variant.choice is not None and examples is None:
        raise UserError(f"variant {variant.name!r} compares skills on a task's few examples; give one task")
    model = Transformer(source.model.config, adapters.for_tasks(table.names))
    with on_mesh(mesh):
        combinations = choose_combinations(
            variant,
            source.model,
            source.parameters,
            [examples] if examples is not None else [],
            [seed] if examples is not None else [],
            loss=loss,
            batch_size=batch_size,
        )
    chosen = jax.tree.map(lambda leaf: leaf[0], combinations)
    initial = initial_adapters(source, variant, model, seed, mesh, chosen, old_tasks)
    trained, frozen_adapters = split(initial, selects(variant.trainable))
    origin = source.origin
    if not frozen_adapters:
        origin = origin.without_adapters()
    elif origin.adapters is None:
        origin = on_skills_of(origin, source.step)
    _, backbone = split(source.parameters, is_adapter_parameter)
    return AdaptationStart(model, trained, merge(backbone, frozen_adapters), origin, chosen)


def initial_adapters(
    source: Restored,
    variant: Variant,
    model: Transformer,
    seed: int,
    mesh: Mesh,
    combination: Combination | None,
    old_tasks: Sequence[str],
) -> Tree:
    """The parameters of the new tasks' adapters before the first step.

    Args:
      source: the run; its backbone is not needed.
      variant: the way to adapt it.
      model: the model of the new tasks.
      seed: seed of the fresh parameters.
      mesh: the devices that hold the parameters.
      combination: the combination of skills, if the variant chooses skills.
      old_tasks: as in `start_from`.
    """
    assert source.model.adapters is not None
    assert model.adapters is not None
    rows = new_rows(source, variant, old_tasks, model.adapters.n_tasks)
    skills, _ = split(source.parameters, is_adapter_parameter)
    fresh = fresh_parameters(model, seed, mesh)
    places = jax.tree.map(lambda leaf: leaf.sharding, fresh)
    begin = jax.jit(functools.partial(initial_parameters, variant), static_argnums=2, out_shardings=places)
    with on_mesh(mesh):
        skill = source.model.adapters.skill
        return begin(skills, fresh, skill, combination, rows, jax.random.key(seed))


def new_rows(source: Restored, variant: Variant, old_tasks: Sequence[str], n_new: int) -> Tree | None:
    """The routers' parameters for new tasks, averaged over old tasks; None for fresh ones.

    Raises:
      UserError: the variant keeps no rows, or the run does not know one of the tasks.
    """
    check_old_tasks(variant, old_tasks)
    if not old_tasks:
        return None
    try:
        tasks = [source.table.id(name) for name in old_tasks]
    except UserError as error:
        raise UserError(f"init_router_from: {error}; give tasks that the run was trained on") from None
    adapted, _ = split(source.parameters, is_adapter_parameter)
    return averaged_rows(source.model, adapted, tasks, n_new)


def check_old_tasks(variant: Variant, old_tasks: Sequence[str]) -> None:
    """Check that a variant keeps the run's router if new rows are to start from old tasks.

    Raises:
      UserError: the variant does not keep the router.
    """
    if old_tasks and not (variant.routes and variant.skills == "kept" and variant.input_router is None):
        raise UserError(
            f"init_router_from is {tuple(old_tasks)}, and variant {variant.name!r} keeps no rows of the"
            " run's router; use a variant such as 'mhr' or 'mhr-z'"
        )


def backbone_in_float32(source: Restored, experiment: Experiment, mesh: Mesh) -> Tree:
    """The run's backbone in float32, for training; read again if the run has another precision in memory."""
    check_floats(source.model.config, "the variant trains the backbone")
    _, backbone = split(source.parameters, is_adapter_parameter)
    if all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(backbone)):
        return backbone
    path = experiment.backbone or source.origin.backbone
    assert path is not None
    return load_backbone(path, source.model, mesh, jnp.float32)[0]
