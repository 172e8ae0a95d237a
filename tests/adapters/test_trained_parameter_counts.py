"""Trained parameters at the shape of T5 XL: the counts published with MHR (arXiv 2211.03831, table 2)."""

import jax
import pytest
from flax import traverse_util

from poly_jax import configuration
from poly_jax.adapters.config import Adapters
from poly_jax.adapters.ia3 import IA3
from poly_jax.adapters.lora import LoRA
from poly_jax.model.config import T5Config
from poly_jax.model.parameters import parameter_shapes
from poly_jax.model.transformer import Transformer
from poly_jax.routing.fixed import SharedRouter
from poly_jax.routing.learned import LearnedRouter
from poly_jax.weights.parameter_names import is_router

LORA = 2_211_840


@pytest.fixture(scope="module")
def xl():
    """T5 XL with scanned layers: only one layer of each stack is traced, and each leaf has a layer axis."""
    return configuration.load(["models/t5_1_1_xl.gin"]).make(T5Config, scan_layers=True)


def counts(config, n_tasks=1, **settings):
    """Count the skill and router parameters without allocating them."""
    tree, _ = parameter_shapes(Transformer(config, Adapters(n_tasks=n_tasks, **settings)))
    flat = traverse_util.flatten_dict(tree, sep="/")
    skills = sum(leaf.size for name, leaf in flat.items() if "/skills/" in name)
    router = sum(leaf.size for name, leaf in flat.items() if is_router(name))
    return skills, router, tree


def test_one_lora_of_rank_one_has_the_published_count(xl):
    assert counts(xl, skill=LoRA(rank=1), router=SharedRouter())[:2] == (LORA, 0)


def test_ia3_at_its_default_sites_has_the_published_count(xl):
    """It adapts keys and values of self-attention and cross-attention, and the gated input of the MLP.

    24 * (2 * 2048 + 5120) in the encoder, 24 * (2 * 2 * 2048 + 5120) in the decoder.
    """
    sites = (r".*/(key|value)", r".*/mlp/wi_1")
    assert counts(xl, skill=IA3(), router=SharedRouter(), sites=sites)[:2] == (540_672, 0)


def test_poly_trains_eight_skills_and_adapts_one_row_of_logits(xl):
    skills, row, _ = counts(xl, skill=LoRA(rank=1), router=LearnedRouter(), n_skills=8)
    assert skills == 8 * LORA
    assert round(skills / 1e6, 1) == 17.7
    assert row == 3_456 == 432 * 8


def test_mhr_has_as_many_skill_parameters_and_a_row_for_every_head(xl):
    skills, row, tree = counts(xl, skill=LoRA(rank=1), router=LearnedRouter(), n_skills=8, n_splits=64)
    assert skills == 8 * LORA
    assert row == 221_184 == 432 * 8 * 64
    assert all(isinstance(leaf, jax.ShapeDtypeStruct) for leaf in jax.tree.leaves(tree))


def test_the_routers_of_the_t0_recipe_hold_a_row_for_every_template(xl):
    _, table, _ = counts(xl, n_tasks=313, skill=LoRA(rank=1), router=LearnedRouter(), n_skills=8, n_splits=64)
    assert table == 313 * 221_184
    assert round(table / 1e6, 1) == 69.2
