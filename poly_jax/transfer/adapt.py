"""`poly-jax adapt`: a new task from a few examples, starting from the skills of many."""

import contextlib
import dataclasses
from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath

from poly_jax.adapters.config import Adapters
from poly_jax.configuration import Texts
from poly_jax.configuration.gin_text import bindings
from poly_jax.data.batches import eval_batches
from poly_jax.data.task_table import TaskTable
from poly_jax.errors import UserError
from poly_jax.experiment import Experiment
from poly_jax.model.loss import Loss, TokenLoss
from poly_jax.training import guards
from poly_jax.training.checkpoints import Checkpoints
from poly_jax.training.host_share import host_share
from poly_jax.training.loop import Run, fit
from poly_jax.training.mesh import Partitioning, check_batch_size
from poly_jax.training.optimizer import Optimizer
from poly_jax.training.restore import restore
from poly_jax.training.run_folder import claim
from poly_jax.training.skills_below import check_resumed
from poly_jax.training.start import Start, describe
from poly_jax.training.train import host_batches
from poly_jax.training.update import TrainState, Update
from poly_jax.transfer.adapted_from import AdaptedFrom
from poly_jax.transfer.few_shot import EXAMPLE_IDS, FewShotBatches, count_examples, first_examples
from poly_jax.transfer.start import start_from
from poly_jax.transfer.variants import Variant, find, usual


def adapt(
    run: str,
    task: str,
    output_dir: str,
    experiment: Experiment,
    variant: str | Variant | None = None,
    shots: int | None = None,
    split_name: str = "train",
    steps: int = 1000,
    batch_size: int = 8,
    optimizer: Optimizer = Optimizer(),
    loss: Loss = TokenLoss(),
    init_router_from: Sequence[str] = (),
    seed: int = 0,
    save_every: int = 1000,
    report_every: int = 50,
    partitioning: Partitioning = Partitioning(),
    *,
    texts: Texts,
) -> TrainState:
    """Trains a new task's adapters from those of a run; the same call goes on where it was stopped.

    The adapted run is a run like any other: it can be evaluated and asked for predictions. A mixture is
    adapted to as a whole, from a stream of its examples: its tasks have a row each, or share the one adapter.

    Args:
      run: folder of the run that learned the skills, or one of its checkpoints.
      task: a registered seqio task, or a mixture of several.
      output_dir: folder of the adapted run.
      experiment: the run's experiment.
      variant: a variant or its name (see `poly_jax.transfer.variants`); None for the one that trains most of
        what the run has learned: "mhr", "poly", "shared", or "soup".
      shots: examples to train on, the first of the split, of each task of a mixture; None for all.
      split_name: the task's split that the examples are from.
      steps: optimizer steps.
      batch_size: examples per step, over all devices.
      optimizer: the optimizer of the trained adapters.
      loss: TokenLoss, or ChoiceLoss for a task with answer choices.
      init_router_from: tasks of the run: a new task's row starts as the average of theirs; none for a fresh
        row.
      seed: seed of the fresh router row, the batches, dropout and the router's sampling.
      save_every: steps between checkpoints.
      report_every: steps between reports of the loss.
      partitioning: shape of the device mesh.
      texts: what the folder of a run with the source's configuration says of it; see `train`.

    Returns:
      The state after the last step.

    Raises:
      UserError: the variant does not fit the run, the task is unknown or has no examples, or the folder holds
        a run that began otherwise.
    """
    counts = {
        "steps": steps,
        "batch_size": batch_size,
        "save_every": save_every,
        "report_every": report_every,
    }
    guards.check_counts("adapt", **counts)
    mesh = partitioning.mesh()
    check_batch_size(batch_size, mesh)
    chosen = find(variant) if isinstance(variant, str) else variant
    table = guards.registered_table(experiment, task)
    source = restore(experiment, run, mesh)
    chosen = (chosen or find(usual(source.model.adapters))).named_for(source.model.adapters)
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
    start_id = experiment.model.decoder_start_id
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
    lines = changed_bindings(source.model.adapters, start.model.adapters, task, adapted)
    claim(folder, texts.with_bindings(lines))
    if experiment.check_backbone:
        check_resumed(folder, start.origin)
    count = f"{len(batches)} example(s)" if batches else f"{len(table)} task(s)"
    print(
        f"{task}: {count}, {chosen.name}, {describe(start.trained)} {'trained' if chosen.trains else 'kept'}"
    )
    if not chosen.trains:
        return save_untrained(start, folder, table)
    update = Update(dataclasses.replace(start.model, train=True), loss, optimizer.transformation(steps))
    stream = batches or host_batches(data, table, seed, loss.needs_choices, mesh, start_id)
    return fit(start, update, stream, Run(folder, table, mesh, steps, seed, save_every, report_every))


def save_untrained(start: Start, folder: epath.Path, table: TaskTable) -> TrainState:
    """Writes a run's only checkpoint, of step 0: the start as it is; nothing where it is there already."""
    none = jnp.zeros((), jnp.int32)
    state = TrainState(none, start.trained, {"steps": none})
    with contextlib.closing(Checkpoints(folder)) as checkpoints:
        if checkpoints.latest_step() is None:
            checkpoints.save(state, table, start.origin)
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
        start_id=experiment.model.decoder_start_id,
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
                f"{found} example(s); ask for 1 to {found}"
            )
    return first_examples(joined, shots)


def changed_bindings(
    before: Adapters | None, after: Adapters | None, task: str, adapted: AdaptedFrom
) -> list[str]:
    """The lines in which the adapted run's `config.gin` differs from the source's."""
    lines = [f"Data.mixture = {task!r}", *bindings(adapted)]
    if after is None:
        lines.append("Experiment.adapters = None")
    for name in ("skill", "router", "private_skill") if after else ():
        old, new = getattr(before, name), getattr(after, name)
        # A router that depends on its tasks finds what it knows of them again by their names.
        if type(old) is type(new) and (name == "router" or old == new):
            continue
        lines.append(f"Adapters.{name} = {None if new is None else f'@{type(new).__name__}()'}")
        lines += [] if new is None else bindings(new)
    return lines
