"""`poly-jax adapt`: a new task from a few examples, starting from the skills of many."""

import contextlib
import dataclasses
from collections.abc import Mapping, Sequence

import gin
import jax
import jax.numpy as jnp
import numpy as np
from etils import epath

from poly_jax.adapters.config import Adapters
from poly_jax.configuration.gin_text import bindings
from poly_jax.data.batches import eval_batches
from poly_jax.data.task_table import TaskTable
from poly_jax.errors import UserError
from poly_jax.experiment import Experiment
from poly_jax.model.loss import Loss, TokenLoss
from poly_jax.training import run_folder
from poly_jax.training.checkpoints import Checkpoints
from poly_jax.training.host_share import host_share
from poly_jax.training.loop import fit
from poly_jax.training.mesh import Partitioning, check_batch_size
from poly_jax.training.optimizer import Optimizer
from poly_jax.training.restore import restore
from poly_jax.training.skills_below import check_resumed
from poly_jax.training.train import begin, describe, host_batches
from poly_jax.training.update import TrainState, Update
from poly_jax.training.vocabulary_room import check_vocabularies
from poly_jax.transfer.adapted_from import AdaptedFrom
from poly_jax.transfer.few_shot import EXAMPLE_IDS, FewShotBatches, count_examples, first_examples
from poly_jax.transfer.start import Start, start_from
from poly_jax.transfer.variants import find, usual


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
    init_router_from: Sequence[str] = (),
    seed: int = 0,
    save_every: int = 1000,
    report_every: int = 50,
    partitioning: Partitioning | None = None,
) -> TrainState:
    """Trains a new task's adapters from those of a run; the same call goes on where it was stopped.

    The adapted run is a run like any other: it can be evaluated and asked for predictions. A mixture is
    adapted to as a whole, from a stream of its examples: its tasks have a row each, or share the one adapter.

    Args:
      run: folder of the run that learned the skills, or one of its checkpoints.
      task: a registered seqio task, or a mixture of several.
      output_dir: folder of the adapted run.
      variant: see `poly_jax.transfer.variants`; None for the one that trains most of what the run has
        learned: "mhr", "poly", "shared", or "soup".
      experiment: that of the run.
      shots: examples to train on, the first of the split, of each task of a mixture; None for all.
      split_name: the task's split that they are from.
      steps: optimizer steps.
      batch_size: examples per step, over all devices.
      optimizer: of the trained adapters; None, as for `loss` and `partitioning`, for what gin binds of
        `Optimizer` (in the scope `adapt`), `TokenLoss` and `Partitioning`.
      loss: TokenLoss, or ChoiceLoss for a task with answer choices.
      init_router_from: tasks of the run: a new task's row starts as the average of theirs; none for a fresh
        row.
      seed: of the fresh router row, the batches, dropout and the router's sampling.
      save_every: steps between checkpoints.
      report_every: steps between reports of the loss.
      partitioning: shape of the device mesh.

    Returns:
      The state after the last step.

    Raises:
      UserError: the variant does not fit the run, the task is unknown or has no examples, or the folder holds
        a run that began otherwise.
    """
    with gin.config_scope("adapt"):
        optimizer, loss = optimizer or Optimizer(), loss or TokenLoss()
    mesh = (partitioning or Partitioning()).mesh()
    check_batch_size(batch_size, mesh)
    experiment.data.register_tasks()
    source = restore(experiment, run, mesh)
    chosen = find(variant or usual(source.model.adapters))
    table = TaskTable.of(task)
    check_vocabularies(task, experiment.model.vocab_size)
    examples, batches = None, None
    if len(table) == 1 or shots is not None:
        examples = read_examples(experiment, table, task, split_name, shots)
        loss.divisors(examples)  # Before anything is written, for a loss that these examples do not suit.
        batches = FewShotBatches(examples, batch_size, seed, host_share(mesh))
    start = start_from(
        source,
        chosen,
        table,
        seed,
        mesh,
        experiment=experiment,
        loss=loss,
        batch_size=batch_size,
        examples=examples,
        old_tasks=init_router_from,
    )
    data = dataclasses.replace(experiment.data, mixture=task, split=split_name, batch_size=batch_size)
    folder = epath.Path(output_dir)
    adapted = AdaptedFrom.chosen(
        start.combination,
        step=str(source.step.absolute()),
        variant=chosen.name,
        seed=seed,
        shots=shots,
        init_router_from=tuple(init_router_from),
    )
    _bind(source.model.adapters, start.model.adapters, task, adapted)
    run_folder.claim(folder)
    if experiment.check_backbone:
        check_resumed(folder, start.origin)
    count = f"{len(batches)} example(s)" if batches else f"{len(table)} task(s)"
    print(
        f"{task}: {count}, {chosen.name}, {describe(start.trained)} {'trained' if chosen.trains else 'kept'}"
    )
    if not chosen.trains:
        return save_untrained(start, folder, table)
    update = Update(dataclasses.replace(start.model, train=True), loss, optimizer.transformation(steps))
    return fit(
        update,
        begin(start.trained, update, mesh),
        start.frozen,
        batches or host_batches(data, table, seed, loss.needs_choices, mesh),
        folder=folder,
        table=table,
        origin=start.origin,
        mesh=mesh,
        steps=steps,
        seed=seed,
        save_every=save_every,
        report_every=report_every,
    )


def save_untrained(start: Start, folder: epath.Path, table: TaskTable) -> TrainState:
    """Writes a run's only checkpoint, of step 0: the start as it is; nothing where it is there already."""
    none = jnp.zeros((), jnp.int32)
    state = TrainState(none, start.trained, {"steps": none})
    with contextlib.closing(Checkpoints(folder)) as checkpoints:
        if checkpoints.latest_step() is None:
            checkpoints.save(state, table, start.origin)
    run_folder.save_operative_config(folder)
    return state


def read_examples(
    experiment: Experiment, table: TaskTable, task: str, split_name: str, shots: int | None = None
) -> Mapping[str, np.ndarray]:
    """The first `shots` examples of a task's split as arrays, `[row, length]`; all of them with None.

    Of a mixture they are the first `shots` of each of its tasks.

    An example is one row, or several where the task shows it by several prompts or draws its target among
    several: then `example_ids` [row] says which are one. Where the task has answer choices there are
    `choices` [row, choices, length] and `labels` [row].

    Raises:
      UserError: a task has fewer.
    """
    batches = eval_batches(
        task,
        table,
        split=split_name,
        sequence_length=experiment.data.sequence_length,
        batch_size=1,
        choices=True,
        every_target=True,
    )
    joined = jax.tree.map(lambda *rows: np.concatenate(rows), *batches)
    if EXAMPLE_IDS in joined:
        # Tasks of a mixture number their examples each from 0.
        pairs = np.stack([joined["task_ids"], joined[EXAMPLE_IDS]], axis=1)
        joined[EXAMPLE_IDS] = np.unique(pairs, axis=0, return_inverse=True)[1]
    if shots is None:
        return joined
    for task_id in range(len(table)):
        own = {name: leaf[joined["task_ids"] == task_id] for name, leaf in joined.items()}
        found = count_examples(own)
        if not 0 < shots <= found:
            raise UserError(
                f"{shots} shots were asked for, and split {split_name!r} of {table.name(task_id)} has "
                f"{found} example(s)"
            )
    return first_examples(joined, shots)


def _bind(before: Adapters | None, after: Adapters | None, task: str, adapted: AdaptedFrom) -> None:
    """What the adapted run's config.gin says in place of the source's."""
    lines = [f"Data.mixture = {task!r}", *bindings(adapted)]
    if after is None:
        lines.append("Experiment.adapters = None")
    for name in ("skill", "router", "private_skill") if after else ():
        old, new = getattr(before, name), getattr(after, name)
        # What a router knows of its tasks it finds again by their names.
        if type(old) is type(new) and (name == "router" or old == new):
            continue
        lines.append(f"Adapters.{name} = {None if new is None else f'@{type(new).__name__}()'}")
        lines += [] if new is None else bindings(new)
    with gin.unlock_config():
        gin.parse_config(lines)
