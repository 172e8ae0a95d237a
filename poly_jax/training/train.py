"""`poly-jax train`: many tasks at once on a frozen backbone; full fine-tuning and pretraining likewise."""

import dataclasses
import functools
from typing import Any, Literal

import gin
import jax
from etils import epath
from jax.sharding import Mesh

from poly_jax.data.batches import train_batches
from poly_jax.data.stream import BatchStream
from poly_jax.data.task_table import TaskTable
from poly_jax.errors import UserError
from poly_jax.experiment import Data, Experiment
from poly_jax.model.loss import Loss, TokenLoss
from poly_jax.model.transformer import Transformer
from poly_jax.routing.ibp import IBPPrior
from poly_jax.training import run_folder
from poly_jax.training.annealing import check_uniform_at_zero
from poly_jax.training.backbone import RANDOM, load_backbone
from poly_jax.training.checkpoints import Origin
from poly_jax.training.fresh import fresh_parameters
from poly_jax.training.host_share import host_share
from poly_jax.training.loop import fit
from poly_jax.training.mesh import Partitioning, check_batch_size, replicated
from poly_jax.training.optimizer import Optimizer, like_parameters
from poly_jax.training.skills_below import check_resumed
from poly_jax.training.update import TrainState, Update, start
from poly_jax.training.vocabulary_room import check_vocabularies
from poly_jax.weights.parameter_names import Trainable, is_adapter_parameter, selects
from poly_jax.weights.tree import merge, split


@gin.configurable
def train(
    output_dir: str,
    experiment: Experiment = gin.REQUIRED,
    steps: int = gin.REQUIRED,
    optimizer: Optimizer | None = None,
    loss: Loss | None = None,
    trainable: Literal["adapters", "all"] = "adapters",
    seed: int = 0,
    microbatches: int = 1,
    save_every: int = 1000,
    report_every: int = 20,
    partitioning: Partitioning | None = None,
    prior: IBPPrior | None = None,
    router_anneal_steps: int = 0,
) -> TrainState:
    """Trains an experiment's model on its mixture; the same call goes on where it was stopped.

    Args:
      output_dir: folder of the run.
      experiment: model, backbone, adapters and data.
      steps: optimizer steps of the whole run.
      optimizer: of the trained parameters; None, as for `loss` and `partitioning`, for what gin binds of
        `Optimizer`, `TokenLoss` and `Partitioning`.
      loss: TokenLoss, or ChoiceLoss for tasks with answer choices.
      trainable: "adapters" for skills and routers, or "all" for full fine-tuning and pretraining.
      seed: of the initial adapters, the order of the data, dropout and the router's sampling.
      microbatches: parts that a batch is cut into, to fit in memory; the step is the same.
      save_every: steps between checkpoints.
      report_every: steps between reports, which are means over the steps since the last one.
      partitioning: shape of the device mesh.
      prior: `@IBPPrior()` for the Indian Buffet Process as a prior on the learned routers.
      router_anneal_steps: in the last so many steps the routers' logits shrink to 0 along half a cosine, so
        that all tasks end with equal weights (arXiv 2211.03831, zero-shot with MHR-mu); 0 for none.

    Returns:
      The state after the last step.

    Raises:
      UserError: something in the configuration cannot be.
    """
    if trainable not in ("adapters", "all"):
        raise UserError(f"train.trainable is {trainable!r}; use 'adapters' or 'all'")
    if experiment.adapters is None and trainable != "all":
        raise UserError(
            f"train.trainable is {trainable!r}, but Experiment.adapters is not bound: bind it, or train 'all'"
        )
    if experiment.backbone is None and trainable != "all":
        raise UserError(
            f"Experiment.backbone is not bound, and train.trainable {trainable!r} needs one to"
            " freeze: bind its path ('random' for a trial without weights), or train 'all'"
        )
    counts = {
        "steps": steps,
        "microbatches": microbatches,
        "save_every": save_every,
        "report_every": report_every,
    }
    for name, count in counts.items():
        if count < 1:
            raise UserError(f"train.{name} is {count}; it must be at least 1")
    if router_anneal_steps < 0:
        raise UserError(f"train.router_anneal_steps is {router_anneal_steps}; it must be 0 (none) or more")
    if experiment.data.batch_size % microbatches:
        raise UserError(
            f"train.microbatches {microbatches} does not divide Data.batch_size {experiment.data.batch_size}"
        )
    optimizer, loss = optimizer or Optimizer(), loss or TokenLoss()
    mesh = (partitioning or Partitioning()).mesh()
    check_batch_size(experiment.data.batch_size // microbatches, mesh)
    folder = epath.Path(output_dir)
    experiment.data.register_tasks()
    table = TaskTable.of(experiment.data.mixture)
    check_vocabularies(experiment.data.mixture, experiment.model.vocab_size)
    model = experiment.transformer(table)
    if prior is not None:
        if model.adapters is None:
            raise UserError("train.prior is bound, but Experiment.adapters is not; bind train.prior = None")
        prior.check(model.adapters.router)
    if router_anneal_steps:
        check_uniform_at_zero(model.adapters)
    batches = host_batches(experiment.data, table, seed, loss.needs_choices, mesh)
    trained, frozen, origin = initial_trees(model, experiment.backbone, trainable, seed, mesh)
    run_folder.claim(folder)
    if experiment.check_backbone:
        check_resumed(folder, origin)
    update = Update(
        dataclasses.replace(model, train=True),
        loss,
        optimizer.transformation(steps, router_anneal_steps),
        microbatches,
        prior,
    )
    print(
        f"{len(table)} task(s), {describe(trained)} trained, {describe(frozen)} frozen, {mesh.size} device(s)"
    )
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


def host_batches(data: Data, table: TaskTable, seed: int, choices: bool, mesh: Mesh) -> BatchStream:
    """This host's share of a mixture's endless stream of batches; see `train_batches`."""
    share = host_share(mesh)
    return train_batches(
        data.mixture,
        table,
        split=data.split,
        sequence_length=data.sequence_length,
        batch_size=data.batch_size // share.count,
        seed=seed,
        choices=choices,
        num_shards=share.count,
        shard_id=share.index,
    )


def initial_trees(
    model: Transformer, backbone: str | None, trainable: Trainable, seed: int, mesh: Mesh
) -> tuple[dict[str, Any], dict[str, Any], Origin]:
    """The trained and the frozen tree before the first step, on the mesh; where the frozen one is from."""
    selected = selects(trainable)
    loaded: dict[str, Any] = {}
    origin = Origin()
    if backbone is not None:
        dtype = jax.numpy.float32 if trainable == "all" else None
        loaded, digest = load_backbone(backbone, model, mesh, dtype)
        if trainable != "all":
            origin = Origin(backbone if backbone == RANDOM else str(epath.Path(backbone).absolute()), digest)
    fresh = fresh_parameters(model, seed, mesh, is_adapter_parameter if loaded else lambda path: True)
    trained, frozen = split(merge(loaded, fresh), selected)
    return trained, frozen, origin


def begin(trained: dict[str, Any], update: Update, mesh: Mesh) -> TrainState:
    """The state before the first step; the optimizer's state is placed as the parameters are."""
    initial = functools.partial(start, optimizer=update.optimizer)
    places = jax.tree.map(lambda leaf: leaf.sharding, trained)
    state = like_parameters(jax.eval_shape(initial, trained), trained, places, replicated(mesh))
    return jax.jit(initial, out_shardings=state)(trained)


def describe(tree: dict[str, Any]) -> str:
    """How many parameters a tree has, for people."""
    count = sum(leaf.size for leaf in jax.tree.leaves(tree))
    return f"{count:,} parameters"
