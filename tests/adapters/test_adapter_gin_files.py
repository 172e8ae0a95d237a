"""Every gin file for adapters or routers makes the adapters that its name says."""

import itertools

import pytest

from poly_jax import configuration
from poly_jax.adapters.config import Adapters
from poly_jax.adapters.ia3 import IA3
from poly_jax.adapters.lora import LoRA
from poly_jax.configuration import gin_root
from poly_jax.configuration.gin_text import bindings
from poly_jax.routing.fixed import AverageRouter, PrivateRouter, SharedRouter
from poly_jax.routing.learned import LearnedRouter
from poly_jax.routing.random_rows import RandomRouter
from poly_jax.routing.table import TableRouter
from poly_jax.training.ibp_prior import IBPPrior

SKILLS = {
    "lora": LoRA(rank=1),
    "lora_merge_after": LoRA(rank=1, merge_after=True),
    "lora_peft": LoRA(rank=1, init="kaiming"),
    "ia3": IA3(),
}
ROUTERS = {
    "average": AverageRouter(),
    "cpoly": LearnedRouter(),
    "mhr": LearnedRouter(),
    "poly": LearnedRouter(),
    "private": PrivateRouter(),
    "random": RandomRouter(),
    "shared": SharedRouter(),
    "table": TableRouter("skills.csv"),
}


def made(*files, bound=()):
    loaded = configuration.load(files, bound)
    assert "Experiment.adapters = @Adapters\n" in loaded.config
    return loaded.make(Adapters, n_tasks=3)


def test_every_gin_file_is_tested():
    for folder, known in (
        ("adapters", SKILLS),
        ("routers", ROUTERS),
        ("runs", ["multitask", "ibp_prior"]),
    ):
        there = {path.stem for path in (gin_root() / folder).glob("*.gin")}
        assert there == set(known)


@pytest.mark.parametrize(("skill", "router"), itertools.product(SKILLS, ROUTERS))
def test_each_skill_goes_with_each_router(skill, router):
    bound = ["TableRouter.path = 'skills.csv'"] if router == "table" else []
    adapters = made(f"adapters/{skill}.gin", f"routers/{router}.gin", bound=bound)
    assert (adapters.skill, adapters.router) == (SKILLS[skill], ROUTERS[router])
    assert adapters.n_splits == (8 if router == "mhr" else 1)
    assert (adapters.private_skill is not None) == (router == "cpoly")


def test_a_private_skill_has_its_own_settings():
    bound = ["LoRA.rank = 4", "LoRA.merge_after = True", "private/LoRA.rank = 2", "private/LoRA.alpha = 0.5"]
    adapters = made("adapters/lora.gin", "routers/cpoly.gin", bound=bound)
    assert adapters.skill == LoRA(rank=4, merge_after=True)
    assert adapters.private_skill == LoRA(rank=2, alpha=0.5, merge_after=True)


def test_written_bindings_make_the_same_adapters_again():
    """Two skills of one kind are kept apart, and the rows of a table are written."""
    before = Adapters(
        LoRA(rank=4, dropout=0.1),
        TableRouter(rows=((1, 0), (0.5, 0.25), (0, 1))),
        n_tasks=3,
        private_skill=LoRA(rank=2, init="gaussian"),
    )
    lines = ["Experiment.adapters = @Adapters", *bindings(before, skip=("n_tasks",))]
    assert configuration.load([], lines).make(Adapters, n_tasks=3) == before


def test_the_prior_is_bound_as_an_argument_of_training():
    loaded = configuration.load(["adapters/lora.gin", "routers/poly.gin", "runs/ibp_prior.gin"])
    assert loaded.bound("train")["prior"] == IBPPrior(weight=0.01, concentration=3.0)
