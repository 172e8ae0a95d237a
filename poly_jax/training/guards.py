"""Checks the arguments of `train` and `adapt` before any weights are read."""

from collections.abc import Iterable
from typing import Literal, get_args

from poly_jax.adapters.config import Adapters
from poly_jax.adapters.skill import takes_packed_rows
from poly_jax.counts import check_counts
from poly_jax.data.task_table import TaskTable
from poly_jax.errors import UserError
from poly_jax.experiment import Data, Experiment
from poly_jax.model.config import T5Config
from poly_jax.model.loss import Loss
from poly_jax.training.annealing import check_uniform_at_zero
from poly_jax.training.ibp_prior import IBPPrior
from poly_jax.training.vocabulary_room import check_vocabularies

TrainedPart = Literal["adapters", "all"]
"""The parameters that `train` trains: those of skills and routers, or all."""


def check_seeds(name: str, seeds: Iterable[int]) -> None:
    """Raise a UserError if a seed is below 0, which NumPy's generators do not take, or has over 32 bits.

    JAX's keys have the last 32 bits of a seed, so that larger ones would repeat the draws of smaller ones.
    """
    for seed in seeds:
        if not 0 <= seed < 2**32:
            raise UserError(f"{name} is {seed}; it must be a whole number from 0 to {2**32 - 1}")


def check_trainable(experiment: Experiment, trainable: str) -> None:
    """Raise a UserError if an experiment lacks the weights that are to be trained or frozen."""
    if trainable not in get_args(TrainedPart):
        known = " or ".join(map(repr, get_args(TrainedPart)))
        raise UserError(f"train.trainable is {trainable!r}; use {known}")
    if trainable == "all":
        check_floats(experiment.model, "train.trainable is 'all'")
        return
    if experiment.adapters is None:
        raise UserError(
            f"train.trainable is {trainable!r}, but Experiment.adapters is not bound: bind it, or train 'all'"
        )
    if experiment.backbone is None:
        raise UserError(
            f"Experiment.backbone is not bound, and train.trainable {trainable!r} needs one to"
            " freeze: bind its path ('random' for a trial without weights), or train 'all'"
        )


def check_floats(model: T5Config, trains_all: str) -> None:
    """Raise a UserError if a model whose kernels are integers is to be trained; `trains_all` says by what."""
    if model.quantization != "none":
        raise UserError(
            f"T5Config.quantization is {model.quantization!r}, and {trains_all}; integers cannot be trained:"
            " bind T5Config.quantization = 'none'"
        )


def check_microbatches(batch_size: int, microbatches: int) -> None:
    """Raise a UserError if a batch cannot be split into this number of equal parts."""
    check_counts("train", microbatches=microbatches)
    if batch_size % microbatches:
        raise UserError(f"train.microbatches {microbatches} does not divide Data.batch_size {batch_size}")


def check_given_skills(given: Iterable[tuple[str, str, str]], adapters: Adapters | None) -> None:
    """Check a number of skills that the user gives beside files, where most files bind one.

    Args:
      given: the scope, the configurable and the parameter of each binding that is given.
      adapters: the adapters.

    Raises:
      UserError: `Adapters.n_skills` is given, and the router fixes another number.
    """
    if adapters is None or not any(name.endswith(".Adapters") and f == "n_skills" for _, name, f in given):
        return
    asked, fixed = adapters.n_skills, adapters.inventory_size
    if fixed != asked and fixed == adapters.router.n_skills(asked + 1, adapters.n_tasks):
        raise UserError(
            f"Adapters.n_skills is {asked}, and {type(adapters.router).__name__} fixes the number of skills;"
            " leave it out, or choose a router that mixes several skills, such as routers/mhr.gin"
        )


def check_packing(data: Data, loss: Loss, adapters: Adapters | None) -> None:
    """Raise a UserError where rows are to be packed that the loss or a skill cannot take apart."""
    if data.packing == "none":
        return
    advice = "bind Data.packing = 'none'"
    if loss.needs_choices:
        raise UserError(
            f"Data.packing is {data.packing!r}, and {type(loss).__name__} compares answer choices, which are"
            f" not packed; {advice}"
        )
    for skill in (adapters.skill, adapters.private_skill) if adapters is not None else ():
        if skill is not None and not takes_packed_rows(skill):
            raise UserError(
                f"Data.packing is {data.packing!r}, and {type(skill).__name__}.apply has no argument"
                f" `segments`, which packed rows need; {advice}"
            )


def check_routers(adapters: Adapters | None, prior: IBPPrior | None, router_anneal_steps: int) -> None:
    """Raise a UserError if a prior on the routers, or their annealing, does not fit the adapters."""
    if router_anneal_steps < 0:
        raise UserError(f"train.router_anneal_steps is {router_anneal_steps}; it must be 0 (none) or more")
    if adapters is not None and adapters.router_follows_skills:
        raise UserError(
            f"Adapters.router is @{type(adapters.router).__name__}(), which is made for trained skills; train"
            " skills with routers/private.gin, and adapt that run with --variant=arrow or phatgoose"
        )
    if prior is not None:
        if adapters is None:
            raise UserError("train.prior is bound, but Experiment.adapters is not; bind train.prior = None")
        prior.check(adapters.router)
    if router_anneal_steps:
        check_uniform_at_zero(adapters)


def registered_table(experiment: Experiment, mixture: str) -> TaskTable:
    """Register an experiment's tasks with seqio, and return the task table of a mixture or task.

    Raises:
      UserError: there is no such mixture or task, or its vocabulary has ids without a row in the embedding.
    """
    experiment.data.register_tasks()
    table = TaskTable.of(mixture)
    check_vocabularies(mixture, experiment.model)
    return table
