"""`poly-jax train`: trains many tasks at once on a frozen backbone, or trains all parameters."""

import dataclasses
import functools
import sys

import jax
from etils import epath
from jax.sharding import Mesh

from poly_jax.configuration import Texts
from poly_jax.counted import counted
from poly_jax.counts import check_counts
from poly_jax.data.batches import train_batches
from poly_jax.data.offline_cache import use_cache
from poly_jax.data.registry import tasks_without_split
from poly_jax.data.task_table import TaskTable
from poly_jax.experiment import Data, Experiment
from poly_jax.model.loss import Loss, TokenLoss
from poly_jax.program_start import claim as claim_start
from poly_jax.training import guards
from poly_jax.training.batches import Batches
from poly_jax.training.checkpoints import KEEP
from poly_jax.training.finite_steps import NonFinite
from poly_jax.training.host_share import host_share
from poly_jax.training.hosts import on_first_host
from poly_jax.training.ibp_prior import IBPPrior
from poly_jax.training.loop import Run, fit
from poly_jax.training.mesh import Partitioning, check_batch_size
from poly_jax.training.optimizer import Optimizer
from poly_jax.training.periodic_evaluation import Evaluation, PeriodicEvaluation, check_periodic
from poly_jax.training.run_folder import check_free, claimed
from poly_jax.training.saved_steps import best_checkpoint
from poly_jax.training.skills_below import check_resumed
from poly_jax.training.start import describe, fresh_start
from poly_jax.training.update import TrainState, Update
from poly_jax.weights.tree import listing


def train(
    output_dir: str,
    experiment: Experiment,
    steps: int,
    optimizer: Optimizer = Optimizer(),
    loss: Loss = TokenLoss(),
    trainable: guards.TrainedPart = "adapters",
    seed: int = 0,
    microbatches: int = 1,
    save_every: int = 1000,
    report_every: int = 20,
    partitioning: Partitioning = Partitioning(),
    prior: IBPPrior | None = None,
    router_anneal_steps: int = 0,
    eval_every: int = 0,
    evaluation: Evaluation | None = None,
    keep_checkpoints: int = KEEP,
    keep_best: str | None = None,
    non_finite: NonFinite = "stop",
    *,
    texts: Texts,
) -> TrainState:
    """Train an experiment's model on its mixture; the same call resumes a run that was stopped.

    Args:
      output_dir: folder of the run.
      experiment: model, backbone, adapters and data.
      steps: number of optimizer steps of the whole run.
      optimizer: the optimizer of the trained parameters.
      loss: TokenLoss, or ChoiceLoss for tasks with answer choices.
      trainable: "adapters" for skills and routers, or "all" for full fine-tuning and pretraining.
      seed: seed of the initial adapters, the order of the data, dropout and the router's sampling.
      microbatches: number of parts that a batch is split into to save memory; the step is the same.
      save_every: number of steps between checkpoints.
      report_every: number of steps between reports; a report is a mean over the steps since the last one.
      partitioning: shape of the device mesh.
      prior: `@IBPPrior()` for the Indian Buffet Process as a prior on the learned routers.
      router_anneal_steps: number of last steps in which the routers' logits shrink to 0 along half a cosine,
        so that all tasks end with equal weights (arXiv 2211.03831, zero-shot with MHR-mu); 0 for none.
      eval_every: number of steps between evaluations; 0 for none. The last step is evaluated too.
      evaluation: `@OnlineEvaluation()`, what is evaluated then. It does not change what is trained.
      keep_checkpoints: number of newest checkpoints that the run keeps.
      keep_best: metric of the evaluation by which the best checkpoint is kept beside them, such as
        "mean/exact_match" for the mean over tasks; None for none. Larger values are better. A step whose
        value is the best so far is saved.
      non_finite: "stop" ends the run at the first step whose loss or gradient is not finite; "skip" leaves
        such steps out and counts them.
      texts: the configuration as texts, which are written to the run's folder for other programs. A run is
        resumed only with the same configuration, except for settings that may change (see `run_folder`).

    Returns:
      The state after the last step.

    Raises:
      UserError: a value of the configuration is invalid, or the folder holds other files.
    """
    began = claim_start()
    guards.check_trainable(experiment, trainable)
    guards.check_seeds("train.seed", (seed,))
    check_counts(
        "train",
        steps=steps,
        save_every=save_every,
        report_every=report_every,
        keep_checkpoints=keep_checkpoints,
    )
    check_periodic(eval_every, evaluation, keep_best)
    guards.check_microbatches(experiment.data.batch_size, microbatches)
    folder = epath.Path(output_dir)
    on_first_host(functools.partial(check_free, folder, texts))  # Before anything is read.
    mesh = partitioning.mesh_for(experiment.model, experiment.adapters)
    check_batch_size(experiment.data.batch_size // microbatches, mesh)
    table = guards.registered_table(experiment, experiment.data.mixture)
    model = experiment.transformer(table)
    guards.check_packing(experiment.data, loss, model.adapters)
    guards.check_routers(model.adapters, prior, router_anneal_steps)
    periodic = None
    if eval_every and evaluation is not None:
        periodic = PeriodicEvaluation(
            eval_every, evaluation.prepare(experiment, table, model, mesh, keep_best)
        )

    start_id = experiment.model.decoder_start_id
    batches = host_batches(experiment.data, table, seed, loss, mesh, start_id)
    start = fresh_start(model, experiment.backbone, trainable, seed, mesh)
    run = Run(
        folder,
        table,
        mesh,
        steps,
        seed,
        save_every,
        report_every,
        keep=keep_checkpoints,
        keep_best=keep_best,
        non_finite=non_finite,
        began=began,
    )
    transformation = optimizer.transformation(steps, router_anneal_steps)
    update = Update(dataclasses.replace(model, train=True), loss, transformation, microbatches, prior)
    print(
        f"{counted(len(table), 'task')}, {describe(start.trained)} trained, {describe(start.frozen)} frozen,"
        f" {counted(mesh.size, 'device')}"
    )
    with claimed(folder, texts):
        if experiment.check_backbone:
            check_resumed(folder, start.origin)
        state = fit(start, update, batches, run, periodic)
    best = best_checkpoint(folder, keep_best) if keep_best is not None else None
    if best is not None:
        print(f"best checkpoint: {best[0]} ({keep_best} {best[1].value:.4g})")
    return state


def host_batches(data: Data, table: TaskTable, seed: int, loss: Loss, mesh: Mesh, start_id: int) -> Batches:
    """Make this host's share of a mixture's endless stream of batches; see `train_batches`.

    Tasks without the split are left out, as in seqio; a line on standard error names them.

    Raises:
      UserError: the mixture cannot be read so, or its cache lacks a task.
    """
    if data.cache_dir is not None:
        use_cache(data.cache_dir, data.mixture)
    share = host_share(mesh)
    batches = train_batches(
        data.mixture,
        table,
        split=data.split,
        sequence_length=data.sequence_length,
        batch_size=data.batch_size // share.count,
        seed=seed,
        start_id=start_id,
        use_cached=data.cache_dir is not None,
        choices=loss.needs_choices,
        num_shards=share.count,
        shard_id=share.index,
        reading=data.reading,
        packing=data.packing,
        max_segments=data.max_segments,
    )
    if (without := tasks_without_split(data.mixture, data.split)) and jax.process_index() == 0:
        print(f"not trained on, without a split {data.split!r}: {listing(without)}", file=sys.stderr)
    return batches
