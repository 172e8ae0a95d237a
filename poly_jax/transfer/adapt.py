"""`poly-jax adapt`: learns a new task from a few examples, starting from skills trained on many tasks."""

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
from poly_jax.counted import counted
from poly_jax.counts import check_counts
from poly_jax.data.batches import eval_batches
from poly_jax.data.task_table import TaskTable
from poly_jax.data.trimmed import trimmed_examples
from poly_jax.errors import UserError
from poly_jax.experiment import Experiment
from poly_jax.model.loss import Loss, TokenLoss
from poly_jax.program_start import claim as claim_start
from poly_jax.training import guards
from poly_jax.training.checkpoints import KEEP, Checkpoints
from poly_jax.training.finite_steps import NonFinite
from poly_jax.training.host_share import host_share
from poly_jax.training.hosts import on_first_host
from poly_jax.training.loop import Run, fit
from poly_jax.training.mesh import Partitioning, check_batch_size
from poly_jax.training.optimizer import Optimizer
from poly_jax.training.restore import Restored, restore
from poly_jax.training.run_folder import check_free, claimed
from poly_jax.training.skills_below import check_resumed
from poly_jax.training.start import Start, describe
from poly_jax.training.train import host_batches
from poly_jax.training.update import TrainState, Update
from poly_jax.transfer.adapted_from import AdaptedFrom
from poly_jax.transfer.few_shot import EXAMPLE_IDS, FewShotBatches, count_examples, first_examples
from poly_jax.transfer.start import start_from
from poly_jax.transfer.variants import Variant, find, usual
from poly_jax.weights.tree import listing


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
    keep_checkpoints: int = KEEP,
    non_finite: NonFinite = "stop",
    *,
    texts: Texts,
    before: AdaptedFrom | None = None,
) -> TrainState:
    """Train the adapters of a new task from those of a run; the same call resumes a run that was stopped.

    The adapted run can be used like any other run: it can be evaluated, and it predicts. A mixture is adapted
    to as a whole, from a stream of its examples: each task has a row of the router, or all share one adapter.

    Args:
      run: folder of the run that learned the skills, or of one of its checkpoints.
      task: a registered seqio task, or a mixture of several.
      output_dir: folder of the adapted run.
      experiment: the run's experiment.
      variant: a variant or its name (see `poly_jax.transfer.variants`); None for the one that trains most of
        what the run has learned (see `usual`).
      shots: number of examples to train on, from the start of the split of each task; None for all.
      split_name: name of the split with the examples.
      steps: optimizer steps.
      batch_size: examples per step, over all devices.
      optimizer: the optimizer of the trained adapters.
      loss: TokenLoss, or ChoiceLoss for a task with answer choices.
      init_router_from: tasks of the run whose rows are averaged to start the row of a new task; empty for a
        fresh row.
      seed: seed of the fresh router row, the batches, dropout and the router's sampling.
      save_every: steps between checkpoints.
      report_every: steps between reports of the loss.
      partitioning: shape of the device mesh.
      keep_checkpoints: number of newest checkpoints that the run keeps.
      non_finite: "stop" or "skip"; see `train`.
      texts: the source's configuration as texts, from which the adapted run's are made; see `train`.
      before: the start of the source, where it was adapted itself; skills that are kept keep their names.

    Returns:
      The state after the last step.

    Raises:
      UserError: the variant does not fit the run, the task is unknown or has no examples, or the folder holds
        a run that was started differently.
    """
    began = claim_start()
    counts = {
        "steps": steps,
        "batch_size": batch_size,
        "save_every": save_every,
        "report_every": report_every,
        "keep_checkpoints": keep_checkpoints,
    }
    check_counts("adapt", **counts)
    guards.check_seeds("adapt.seed", (seed,))
    folder = epath.Path(output_dir)
    given = first_bindings(task, seed, shots, init_router_from)
    names = [line.partition(" =")[0] for line in given]
    # Before anything is read. The other bindings follow from the run and the examples.
    on_first_host(lambda: check_free(folder, texts.with_bindings(given), names))
    mesh = partitioning.mesh_for(experiment.model, experiment.adapters)
    check_batch_size(batch_size, mesh)
    chosen = find(variant) if isinstance(variant, str) else variant
    table = guards.registered_table(experiment, task)
    source = restore(experiment, run, mesh)
    chosen = (chosen or find(usual(source.model.adapters))).named_for(source.model.adapters)
    if chosen.own_tasks and table.names != source.table.names:
        raise UserError(
            f"variant {chosen.name!r} trains a part of every skill on the skill's own task, and {task} is not"
            f" the mixture of the run's {len(source.table)} tasks ({listing(source.table.names)}); give with"
            " --task the run's own mixture, or register a seqio mixture of exactly these tasks"
        )
    examples, batches = None, None
    if len(table) == 1 or shots is not None:
        examples = read_examples(experiment, table, task, split_name, shots)
        loss.divisors(examples)  # Raises before anything is written if the examples do not fit the loss.
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
    # The variants' batch sizes count examples, so that rows are not packed here.
    data = dataclasses.replace(
        experiment.data, mixture=task, split=split_name, batch_size=batch_size, packing="none"
    )
    adapted = AdaptedFrom.chosen(
        start.combination,
        step=str(source.step.absolute()),
        variant=chosen.name,
        seed=seed,
        shots=shots,
        init_router_from=tuple(init_router_from),
        skill_names=skill_names(chosen, source, before),
    )
    lines = changed_bindings(source.model.adapters, start.model.adapters, task, adapted)
    count = counted(len(batches), "example") if batches else counted(len(table), "task")
    with claimed(folder, texts.with_bindings(lines)):
        kept = "trained" if chosen.trains else "kept"
        print(f"{task}: {count}, {chosen.name}, {describe(start.trained)} {kept}")
        if experiment.check_backbone:
            check_resumed(folder, start.origin)
        if not chosen.trains:
            return save_untrained(start, folder, table)
        update = Update(dataclasses.replace(start.model, train=True), loss, optimizer.transformation(steps))
        stream = batches or host_batches(data, table, seed, loss, mesh, start_id)
        settings = Run(
            folder,
            table,
            mesh,
            steps,
            seed,
            save_every,
            report_every,
            keep=keep_checkpoints,
            non_finite=non_finite,
            began=began,
        )
        return fit(start, update, stream, settings)


def skill_names(variant: Variant, source: Restored, before: AdaptedFrom | None) -> tuple[str, ...]:
    """The names of the skills that a new task's row mixes: those of the tasks that own them, if any do.

    Skills that `source` kept from an earlier run (`before`) keep the names that they had there.
    """
    adapters = source.model.adapters
    if adapters is None or not variant.routes:
        return ()
    if adapters.router.owns_skills:
        return source.table.names
    return before.skill_names if before is not None and variant.skills == "kept" else ()


def save_untrained(start: Start, folder: epath.Path, table: TaskTable) -> TrainState:
    """Write the initial values as the run's only checkpoint, at step 0, unless it exists already."""
    none = jnp.zeros((), jnp.int32)
    state = TrainState(none, start.trained, {"steps": none})
    with contextlib.closing(Checkpoints(folder)) as checkpoints:
        if checkpoints.latest_step() is None:
            checkpoints.save(state, table, start.origin)
    return state


def read_examples(
    experiment: Experiment, table: TaskTable, task: str, split_name: str, shots: int | None = None
) -> Mapping[str, np.ndarray]:
    """Read the first `shots` examples of a task's split as arrays, `[row, length]`; None reads all of them.

    The lengths are those that the examples need (`poly_jax.data.trimmed`), up to those of the experiment.

    For a mixture, the first `shots` examples of each of its tasks are read.

    An example is one row, or several rows if the task has several prompts or possible targets for it. Then
    `example_ids` [row] identifies the example of each row. If the task has answer choices, there are also
    `choices` [row, choices, length] and `labels` [row].

    Raises:
      UserError: a task has fewer examples.
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
        # Each task of a mixture numbers its examples from 0.
        pairs = np.stack([joined["task_ids"], joined[EXAMPLE_IDS]], axis=1)
        joined[EXAMPLE_IDS] = np.unique(pairs, axis=0, return_inverse=True)[1]
    if shots is None:
        return trimmed_examples(joined)
    for task_id in range(len(table)):
        own = {name: leaf[joined["task_ids"] == task_id] for name, leaf in joined.items()}
        found = count_examples(own)
        if not 0 < shots <= found:
            raise UserError(
                f"shots is {shots}, and split {split_name!r} of {table.name(task_id)} has "
                f"{counted(found, 'example')}; ask for 1 to {found}"
            )
    return trimmed_examples(first_examples(joined, shots))


def first_bindings(task: str, seed: int, shots: int | None, old_tasks: Sequence[str]) -> list[str]:
    """The lines of the adapted run's `config.gin` that the arguments give before anything is read."""
    started = AdaptedFrom("", "", seed, shots, tuple(old_tasks))
    later = ("step", "variant", "skills", "weights", "skill_names")
    return [f"Data.mixture = {task!r}", *bindings(started, skip=later)]


def changed_bindings(
    before: Adapters | None, after: Adapters | None, task: str, adapted: AdaptedFrom
) -> list[str]:
    """The lines in which the adapted run's `config.gin` differs from the source's."""
    # Adapted runs of earlier versions do not have this line, and can still be resumed.
    skip = () if adapted.skill_names else ("skill_names",)
    lines = [f"Data.mixture = {task!r}", *bindings(adapted, skip=skip)]
    if after is None:
        lines.append("Experiment.adapters = None")
    for name in ("n_skills", "granularity") if before and after else ():
        if getattr(before, name) != getattr(after, name):
            lines.append(f"Adapters.{name} = {getattr(after, name)!r}")
    for name in ("skill", "router", "private_skill") if after else ():
        old, new = getattr(before, name), getattr(after, name)
        # A router that depends on its tasks looks them up again by their names.
        if type(old) is type(new) and (name == "router" or old == new):
            continue
        lines.append(f"Adapters.{name} = {None if new is None else f'@{type(new).__name__}()'}")
        lines += [] if new is None else bindings(new)
    return lines
