"""Every gin file for adapters or routers makes the adapters that its name says."""

import itertools

import pytest

from poly_jax import configuration
from poly_jax.adapters.config import Adapters
from poly_jax.adapters.ia3 import IA3
from poly_jax.adapters.lora import LoRA
from poly_jax.adapters.mtl_lora import MTLLoRA
from poly_jax.configuration import gin_root
from poly_jax.configuration.gin_text import bindings
from poly_jax.routing.arrow import ArrowRouter
from poly_jax.routing.fixed import AverageRouter, PrivateRouter, SharedRouter
from poly_jax.routing.learned import LearnedRouter
from poly_jax.routing.phatgoose import PHATGOOSERouter
from poly_jax.routing.random_rows import RandomRouter
from poly_jax.routing.smear import SMEARRouter
from poly_jax.routing.table import TableRouter
from poly_jax.routing.token_router import TokenRouter
from poly_jax.training.ibp_prior import IBPPrior
from poly_jax.transfer.settings import configured
from poly_jax.transfer.variants import find

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
    "smear": SMEARRouter(),
    "table": TableRouter("skills.csv"),
    "tokens": TokenRouter(),
}
# These choose the router of a run that adapts another one.
ROUTERS_OF_VARIANTS = {"arrow": ArrowRouter(), "phatgoose": PHATGOOSERouter()}


def made(*files, bound=()):
    loaded = configuration.load(files, bound)
    assert "Experiment.adapters = @Adapters\n" in loaded.config
    return loaded.make(Adapters, n_tasks=3)


def test_every_gin_file_is_tested():
    for folder, known in (
        ("adapters", [*SKILLS, "mtl_lora"]),
        ("routers", [*ROUTERS, *ROUTERS_OF_VARIANTS]),
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


def test_the_file_of_mtl_lora_chooses_skill_and_router_in_place_of_those_before_it():
    for before in ([], ["adapters/lora.gin", "routers/mhr.gin"]):
        adapters = made(*before, "adapters/mtl_lora.gin", bound=["MTLLoRA.alpha = 2.0"])
        assert adapters.skill == MTLLoRA(rank=1, alpha=2.0)
        assert adapters.router == LearnedRouter(scores="softmax", temperature=0.05)
        assert (adapters.n_skills, adapters.n_splits) == (3, 1)


@pytest.mark.parametrize("name", ROUTERS_OF_VARIANTS)
def test_a_file_for_a_router_of_trained_skills_chooses_its_variant(name):
    loaded = configuration.load([f"routers/{name}.gin"])
    assert f"adapt.variant = '{name}'" in loaded.config
    assert find(name).input_router() == ROUTERS_OF_VARIANTS[name]
    assert configured(find(name), loaded).input_router() == ROUTERS_OF_VARIANTS[name]
    kind = type(ROUTERS_OF_VARIANTS[name]).__name__
    one = configuration.load([f"routers/{name}.gin"], [f"{kind}.top_k = 1"])
    assert configured(find(name), one).input_router().top_k == 1


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
