"""`poly-jax adapt`: a new task from a few examples, starting from the skills of many."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import gin
import jax
import numpy as np
from etils import epath
from jax.sharding import Mesh

from poly_jax.adapters.config import Adapters
from poly_jax.data.batches import eval_batches
from poly_jax.data.task_table import TaskTable
from poly_jax.errors import UserError
from poly_jax.experiment import Experiment
from poly_jax.interop.gin_text import bindings
from poly_jax.model.loss import Loss, TokenLoss
from poly_jax.model.transformer import Transformer, init_parameters, parameter_shapes
from poly_jax.training import run_folder
from poly_jax.training.checkpoints import Origin
from poly_jax.training.loop import fit
from poly_jax.training.mesh import Partitioning, check_batch_size, on_mesh, shardings
from poly_jax.training.optimizer import Optimizer
from poly_jax.training.partition import is_adapter, merge, selects, split
from poly_jax.training.restore import Restored, restore
from poly_jax.training.train import begin, describe
from poly_jax.training.update import TrainState, Update
from poly_jax.transfer.few_shot import FewShotBatches, count_examples, first_examples
from poly_jax.transfer.variants import Variant, family, find


@gin.configurable
def adapt(
    run: str,
    task: str,
    output_dir: str,
    variant: str | None = None,
    experiment: Experiment = gin.REQUIRED,
    shots: int | None = None,
    split_name: str = "train",
    steps: int = 1000,
    batch_size: int = 8,
    optimizer: Optimizer | None = None,
    loss: Loss | None = None,
    seed: int = 0,
    save_every: int = 1000,
    report_every: int = 50,
    partitioning: Partitioning | None = None,
) -> TrainState:
    """Trains a new task's adapters from those of a run; the same call goes on where it was stopped.

    The adapted run is a run like any other: it can be evaluated and asked for predictions.

    Args:
      run: folder of the run that learned the skills, or one of its checkpoints.
      task: a registered seqio task.
      output_dir: folder of the adapted run.
      variant: see `poly_jax.transfer.variants`; None for the one that trains most: "mhr", "poly" or "shared".
      experiment: that of the run.
      shots: examples to train on, the first of the split; None for all.
      split_name: the task's split that they are from.
      steps: optimizer steps.
      batch_size: examples per step.
      optimizer: of the trained adapters; None, as for `loss` and `partitioning`, for what gin binds of
        `Optimizer` (in the scope `adapt`), `TokenLoss` and `Partitioning`.
      loss: TokenLoss, or ChoiceLoss for a task with answer choices.
      seed: of the fresh router row, the batches, dropout and the router's sampling.
      save_every: steps between checkpoints.
      report_every: steps between reports of the loss.
      partitioning: shape of the device mesh.

    Returns:
      The state after the last step.

    Raises:
      UserError: the variant does not fit the run, the task is unknown or has no examples.
    """
    with gin.config_scope("adapt"):
        optimizer, loss = optimizer or Optimizer(), loss or TokenLoss()
    mesh = (partitioning or Partitioning()).mesh()
    check_batch_size(batch_size, mesh)
    experiment.data.register_tasks()
    source = restore(experiment, run, mesh)
    if source.model.adapters is None:
        raise UserError(f"{run} has no adapters: there is nothing to adapt from")
    chosen = find(
        variant or ("shared" if source.model.adapters.inventory_size == 1 else family(source.model.adapters))
    )
    table = TaskTable.of(task)
    examples = read_examples(experiment, table, task, split_name, shots)
    loss.divisors(examples)  # Before anything is written, for a loss that these examples do not suit.
    batches = FewShotBatches(examples, batch_size, seed)
    model, trained, frozen, origin = start_from(source, chosen, table, seed, mesh)
    folder = epath.Path(output_dir)
    _bind(source.model.adapters, model.adapters, task)
    run_folder.claim(folder)
    update = Update(dataclasses.replace(model, train=True), loss, optimizer.transformation(steps))
    print(f"{task}: {len(batches)} example(s), {chosen.name}, {describe(trained)} trained")
    return fit(
        update,
        begin(trained, update, mesh),
        frozen,
        batches,
        folder=folder,
        table=table,
        origin=origin,
        mesh=mesh,
        steps=steps,
        seed=seed,
        save_every=save_every,
        report_every=report_every,
    )


def start_from(
    source: Restored, variant: Variant, table: TaskTable, seed: int, mesh: Mesh
) -> tuple[Transformer, dict[str, Any], dict[str, Any], Origin]:
    """The new task's model, its trained and frozen trees before the first step, and what these build on."""
    assert source.model.adapters is not None
    adapters = variant.adapters(source.model.adapters, len(table)).for_tasks(table.names)
    model = Transformer(source.model.config, adapters)
    shapes, axes = parameter_shapes(model)
    places = split(shardings(shapes, axes, mesh), is_adapter)[0]
    skills, backbone = split(source.parameters, is_adapter)
    with on_mesh(mesh):
        draw = jax.jit(lambda key: split(init_parameters(model, key)[0], is_adapter)[0], out_shardings=places)
        fresh = draw(jax.random.key(seed))
        start = jax.jit(variant.initial, static_argnums=2, out_shardings=places)
        initial = start(skills, fresh, source.model.adapters.skill)
    trained, frozen_adapters = split(initial, selects(variant.trainable))
    origin = dataclasses.replace(source.origin, adapters=None)
    if frozen_adapters:
        if source.origin.adapters is not None:
            raise UserError(
                f"{source.step} itself trains a router only; adapt from the run its skills are from:"
                f" {source.origin.adapters}"
            )
        origin = dataclasses.replace(origin, adapters=str(source.step.absolute()))
    return model, trained, merge(backbone, frozen_adapters), origin


def read_examples(
    experiment: Experiment, table: TaskTable, task: str, split_name: str, shots: int | None = None
) -> Mapping[str, np.ndarray]:
    """The first `shots` examples of a task's split as arrays, `[row, length]`; all of them with None.

    An example is one row, or several where the task shows it by several prompts: then `example_ids` [row]
    says which are one. Where the task has answer choices there are `choices` [row, choices, length] and
    `labels` [row].

    Raises:
      UserError: there are fewer.
    """
    batches = eval_batches(
        task,
        table,
        split=split_name,
        sequence_length=experiment.data.sequence_length,
        batch_size=1,
        choices=True,
    )
    joined = jax.tree.map(lambda *rows: np.concatenate(rows), *batches)
    found = count_examples(joined)
    if shots is not None and not 0 < shots <= found:
        raise UserError(
            f"{shots} shots were asked for, and split {split_name!r} of {task} has {found} example(s)"
        )
    return joined if shots is None else first_examples(joined, shots)


def _bind(before: Adapters, after: Adapters | None, task: str) -> None:
    """What the adapted run's config.gin says in place of the source's."""
    lines = [f"Data.mixture = {task!r}"]
    for name in ("skill", "router", "private_skill"):
        old, new = getattr(before, name), getattr(after, name)
        # What a router knows of its tasks it finds again by their names.
        if type(old) is type(new) and (name == "router" or old == new):
            continue
        lines.append(f"Adapters.{name} = {None if new is None else f'@{type(new).__name__}()'}")
        lines += [] if new is None else bindings(new)
    with gin.unlock_config():
        gin.parse_config(lines)
