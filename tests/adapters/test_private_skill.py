"""C-Poly (arXiv 2312.03248): a private skill for each task beside the mix of the shared skills."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util
from jax.sharding import PartitionSpec

from poly_jax.adapters.config import Adapters
from poly_jax.adapters.ia3 import IA3
from poly_jax.adapters.lora import LoRA
from poly_jax.model.config import T5Config
from poly_jax.model.context import Context
from poly_jax.model.parameters import parameter_shapes
from poly_jax.model.projection import Projection
from poly_jax.model.route import Route
from poly_jax.model.transformer import Transformer
from poly_jax.routing.fixed import PrivateRouter
from poly_jax.routing.learned import LearnedRouter
from poly_jax.routing.table import TableRouter
from poly_jax.transfer.new_adapters import initial_parameters, new_adapters
from poly_jax.transfer.variants import VARIANTS
from poly_jax.weights.parameter_names import is_inventory
from poly_jax.weights.tree import split

CONFIG = T5Config(
    vocab_size=32,
    emb_dim=16,
    num_heads=2,
    head_dim=8,
    mlp_dim=24,
    num_encoder_layers=1,
    num_decoder_layers=1,
    mlp_activations=("relu",),
)
SITE = "encoder/attention/query"
IDS = np.array([2, 0, 2], np.int32)


def sigmoid(x):
    return 1 / (1 + np.exp(-np.asarray(x, np.float64)))


def site_of(skill, private, **settings):
    """A site with 3 tasks, 4 shared skills and 2 heads, its parameters and an input."""
    adapters = Adapters(
        skill,
        LearnedRouter(),
        n_tasks=3,
        n_skills=4,
        n_splits=2,
        sites=SITE,
        private_skill=private,
        **settings,
    )
    site = Projection(
        Context(CONFIG, adapters), SITE, 16, jax.nn.initializers.normal(1.0), ("embed", "joined_kv")
    )
    x = np.random.default_rng(0).normal(size=(3, 4, 16)).astype(np.float32)
    shapes = jax.eval_shape(site.init, jax.random.key(0), x, Route(IDS))["params"]
    rng = np.random.default_rng(1)
    parameters = jax.tree.map(lambda leaf: rng.normal(size=leaf.shape).astype(np.float32), shapes)
    return site, parameters, x


def shared_weights(parameters):
    z = sigmoid(parameters["router"]["logits"])
    return z / z.sum(-1, keepdims=True)


def test_lora_adds_the_update_of_the_private_skill_to_the_mix():
    site, parameters, x = site_of(LoRA(rank=2, alpha=3.0), LoRA(rank=1, alpha=0.5))
    skills = parameters["skills"]
    assert skills["private"]["lora_a"].shape == (1, 3, 16, 1)
    got = site.apply({"params": parameters}, x, Route(IDS))
    w = shared_weights(parameters)
    for row, task in enumerate(IDS):
        a = np.concatenate([np.tensordot(w[task, q], skills["lora_a"][q], 1) for q in range(2)], 0)
        b = np.concatenate([np.tensordot(w[task, q], skills["lora_b"][q], 1) for q in range(2)], 1)
        own_a, own_b = (skills["private"][name][0, task] for name in ("lora_a", "lora_b"))
        expected = x[row] @ parameters["kernel"] + 1.5 * x[row] @ a @ b + 0.5 * x[row] @ own_a @ own_b
        np.testing.assert_allclose(got[row], expected, rtol=1e-4, atol=1e-4)


def test_ia3_rescales_the_output_that_the_mix_has_already_rescaled():
    site, parameters, x = site_of(IA3(), IA3())
    skills = parameters["skills"]
    got = site.apply({"params": parameters}, x, Route(IDS))
    w = shared_weights(parameters)
    for row, task in enumerate(IDS):
        v = np.concatenate([w[task, q] @ skills["ia3"][q] for q in range(2)])
        expected = x[row] @ parameters["kernel"] * v * skills["private"]["ia3"][0, task]
        np.testing.assert_allclose(got[row], expected, rtol=1e-4, atol=1e-4)


def test_a_private_skill_learns_only_from_the_rows_of_its_task():
    site, parameters, x = site_of(LoRA(), LoRA())
    slope = jax.grad(lambda p: jnp.sum(site.apply({"params": p}, x, Route(IDS)) ** 2))(parameters)
    learned = np.abs(slope["skills"]["private"]["lora_b"]).max(axis=(0, 2, 3)) > 0
    np.testing.assert_array_equal(learned, [True, False, True])


def test_fresh_skills_of_either_kind_change_nothing():
    for skill in (LoRA(), IA3()):
        site, _, x = site_of(skill, skill)
        fresh = site.init(jax.random.key(0), x, Route(IDS))["params"]
        bare = x @ np.asarray(fresh["kernel"])
        np.testing.assert_allclose(site.apply({"params": fresh}, x, Route(IDS)), bare, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("granularity", ["fine", "layer", "block", "stack", "coarse"])
def test_every_granularity_has_the_same_private_skills(granularity):
    adapters = Adapters(
        LoRA(), LearnedRouter(), n_tasks=3, n_skills=4, private_skill=LoRA(), granularity=granularity
    )
    leaves = traverse_util.flatten_dict(parameter_shapes(Transformer(CONFIG, adapters))[0], sep="/")
    own = {path: leaf.shape for path, leaf in leaves.items() if "private" in path}
    # Two factors at each of 6 encoder and 10 decoder maps.
    assert len(own) == 2 * (6 + 10)
    assert own["decoder/layers_0/mlp/wo/skills/private/lora_a"] == (1, 3, 24, 1)


@pytest.fixture(scope="module")
def trained():
    adapters = Adapters(
        LoRA(rank=2), LearnedRouter(), n_tasks=3, n_skills=4, sites=SITE, private_skill=LoRA(rank=3)
    )
    shapes = parameter_shapes(Transformer(CONFIG, adapters))[0]
    rng = np.random.default_rng(0)
    return adapters, jax.tree.map(lambda leaf: rng.normal(size=leaf.shape).astype(np.float32), shapes)


def test_a_new_task_keeps_the_shared_skills_and_gets_a_fresh_private_skill(trained):
    adapters, parameters = trained
    new = new_adapters(VARIANTS["poly"], adapters)
    assert (new.private_skill, new.n_tasks) == (LoRA(rank=3), 1)
    shapes = parameter_shapes(Transformer(CONFIG, new))[0]
    fresh = jax.tree.map(lambda leaf: np.full(leaf.shape, 7.0, np.float32), shapes)
    start = initial_parameters(VARIANTS["poly"], parameters, fresh, adapters.skill)
    flat, old = (traverse_util.flatten_dict(tree, sep="/") for tree in (start, parameters))
    place = "encoder/layers_0/attention/query/skills"
    np.testing.assert_array_equal(flat[f"{place}/lora_b"], old[f"{place}/lora_b"])
    np.testing.assert_array_equal(flat[f"{place}/private/lora_b"], np.full((1, 1, 3, 16), 7.0))


@pytest.mark.parametrize("name", ["poly-z", "poly-mu"])
def test_variants_that_do_not_train_a_private_skill_leave_it_out(trained, name):
    adapters, parameters = trained
    new = new_adapters(VARIANTS[name], adapters)
    assert new.private_skill is None
    start = initial_parameters(VARIANTS[name], split(parameters, is_inventory)[0], {}, adapters.skill)
    assert not any("private" in path for path in traverse_util.flatten_dict(start, sep="/"))


def test_a_table_router_can_be_combined_with_private_skills():
    adapters = Adapters(
        LoRA(), TableRouter(rows=((1, 0), (0, 1))), n_tasks=2, sites=SITE, private_skill=LoRA()
    )
    leaves = traverse_util.flatten_dict(parameter_shapes(Transformer(CONFIG, adapters))[0], sep="/")
    place = "encoder/layers_0/attention/query/skills"
    assert leaves[f"{place}/lora_a"].shape == (1, 2, 16, 1)
    assert leaves[f"{place}/private/lora_a"].shape == (1, 2, 16, 1)
    assert dataclasses.replace(adapters, private_skill=None).inventory_size == 2


@pytest.mark.parametrize(
    ("router", "skills"), [(LearnedRouter(), "skills"), (PrivateRouter(), "tasks")], ids=["shared", "private"]
)
def test_the_skills_axis_is_named_tasks_where_each_skill_belongs_to_one_task(router, skills):
    private_skill = IA3() if skills == "skills" else None
    adapters = Adapters(LoRA(rank=2), router, 5, 4, 2, SITE, private_skill=private_skill)
    shapes, axes = parameter_shapes(Transformer(CONFIG, adapters))
    of_site = [tree["encoder"]["layers_0"]["attention"]["query"]["skills"] for tree in (shapes, axes)]
    assert of_site[1]["lora_a"] == PartitionSpec("splits", skills, "lora_in", "lora_rank")
    assert of_site[0]["lora_a"].shape[1] == (5 if skills == "tasks" else 4)
    if private_skill is not None:
        assert of_site[1]["private"]["ia3"] == PartitionSpec("splits", "tasks", "lora_out")
