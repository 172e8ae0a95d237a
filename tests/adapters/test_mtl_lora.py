"""MTL-LoRA (arXiv 2410.09437): all tasks share A, and each has a matrix of its own and a mix of several B."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util
from jax.sharding import PartitionSpec

from poly_jax.adapters.config import Adapters
from poly_jax.adapters.lora import LoRA
from poly_jax.adapters.mtl_lora import MTLLoRA
from poly_jax.errors import UserError
from poly_jax.model.config import T5Config
from poly_jax.model.context import Context
from poly_jax.model.generate import Decoding, generate
from poly_jax.model.parameters import parameter_shapes
from poly_jax.model.projection import Projection
from poly_jax.model.route import Route
from poly_jax.model.transformer import Transformer
from poly_jax.routing.fixed import AverageRouter, PrivateRouter, SharedRouter
from poly_jax.routing.learned import LearnedRouter
from poly_jax.routing.smear import SMEARRouter
from poly_jax.routing.token_router import TokenRouter
from poly_jax.transfer.new_adapters import initial_parameters, new_adapters
from poly_jax.transfer.rows import averaged_rows
from poly_jax.transfer.variants import VARIANTS
from poly_jax.weights.layer_trees import stack_layers
from poly_jax.weights.parameter_names import selects

CONFIG = T5Config(
    vocab_size=32,
    emb_dim=16,
    num_heads=2,
    head_dim=8,
    mlp_dim=24,
    num_encoder_layers=2,
    num_decoder_layers=2,
    mlp_activations=("relu",),
)
SITE = "encoder/attention/query"
PLACE = "encoder/layers_0/attention/query"
TAU = 0.05
ROUTER = LearnedRouter(scores="softmax", temperature=TAU)
IDS = np.array([2, 0, 2], np.int32)


def adapters_of(skill=MTLLoRA(rank=3, alpha=2.0), router=ROUTER, **settings):
    return Adapters(skill, router, **{"n_tasks": 3, "n_skills": 4, "sites": SITE, **settings})


def site_of(adapters):
    """One site with drawn parameters, and an input of three rows."""
    site = Projection(
        Context(CONFIG, adapters), SITE, 16, jax.nn.initializers.normal(1.0), ("embed", "joined_kv")
    )
    x = np.random.default_rng(0).normal(size=(3, 4, 16)).astype(np.float32)
    shapes = jax.eval_shape(site.init, jax.random.key(0), x, Route(IDS))["params"]
    rng = np.random.default_rng(1)
    # Logits as small as the temperature, so that no weight is almost 1.
    draw = lambda leaf: (rng.normal(size=leaf.shape) * (TAU if leaf.ndim == 3 else 1)).astype(np.float32)  # noqa: E731
    return site, jax.tree.map(draw, shapes), x


def of_adapterhub(x, a, bs, task_matrix, w, alpha, rank):
    """`MTLLoRA.forward` of AdapterHub's `adapters` 1.3 (methods/lora.py), for one task, in float64.

    Args:
      x: inputs [length, d_in].
      a: `lora_A` [rank, d_in].
      bs: `lora_B` [n_up_projection, d_out, rank].
      task_matrix: `task_specific()` [rank, rank].
      w: `weights` [n_up_projection], before they are divided by `weights_sharpness`.
      alpha: numerator of the scale.
      rank: its denominator.
    """
    x, a, bs, task_matrix, w = (np.asarray(array, np.float64) for array in (x, a, bs, task_matrix, w))
    each = np.stack([x @ a.T @ task_matrix @ b.T for b in bs])
    e = np.exp(w / TAU)
    return (each * e[:, None, None]).sum(0) / e.sum() * alpha / rank


def test_every_row_gets_the_output_of_adapterhubs_formula_for_its_task():
    site, parameters, x = site_of(adapters_of())
    skills = parameters["skills"]
    assert skills["lora_a"].shape == (1, 1, 16, 3)
    assert skills["lora_b"].shape == (1, 4, 3, 16)
    got = site.apply({"params": parameters}, x, Route(IDS))
    for row, task in enumerate(IDS):
        update = of_adapterhub(
            x[row],
            skills["lora_a"][0, 0].T,
            skills["lora_b"][0].transpose(0, 2, 1),
            skills["private"]["lora_lambda"][0, task],
            parameters["router"]["logits"][task, 0],
            alpha=2.0,
            rank=3,
        )
        expected = x[row].astype(np.float64) @ parameters["kernel"] + update
        np.testing.assert_allclose(got[row], expected, rtol=1e-5, atol=1e-5 * np.abs(expected).max())


def test_one_b_that_all_tasks_share_leaves_each_task_its_matrix():
    site, parameters, x = site_of(adapters_of(router=SharedRouter()))
    skills = parameters["skills"]
    got = site.apply({"params": parameters}, x, Route(IDS))
    for row, task in enumerate(IDS):
        a, b, matrix = skills["lora_a"][0, 0].T, skills["lora_b"][0, 0].T, skills["private"]["lora_lambda"]
        update = of_adapterhub(x[row], a, b[None], matrix[0, task], np.ones(1), alpha=2.0, rank=3)
        expected = x[row] @ parameters["kernel"] + update
        np.testing.assert_allclose(got[row], expected, rtol=1e-5, atol=1e-4)


def test_heads_mix_their_parts_of_b_separately():
    site, parameters, x = site_of(adapters_of(n_splits=2))
    skills, logits = parameters["skills"], parameters["router"]["logits"]
    got = site.apply({"params": parameters}, x, Route(IDS))
    a = np.concatenate(skills["lora_a"][:, 0], axis=0).T
    for row, task in enumerate(IDS):
        halves = [
            of_adapterhub(
                x[row],
                a,
                skills["lora_b"][q].transpose(0, 2, 1),
                skills["private"]["lora_lambda"][0, task],
                logits[task, q],
                alpha=2.0,
                rank=3,
            )
            for q in range(2)
        ]
        expected = x[row] @ parameters["kernel"] + np.concatenate(halves, axis=1)
        np.testing.assert_allclose(got[row], expected, rtol=1e-5, atol=1e-4)


def test_fresh_skills_change_nothing_and_begin_with_identities():
    site, _, x = site_of(adapters_of())
    fresh = site.init(jax.random.key(0), x, Route(IDS))["params"]
    np.testing.assert_array_equal(fresh["skills"]["private"]["lora_lambda"], [[np.eye(3)] * 3])
    np.testing.assert_allclose(
        site.apply({"params": fresh}, x, Route(IDS)), x @ np.asarray(fresh["kernel"]), rtol=1e-5, atol=1e-5
    )
    # torch.nn.init.kaiming_uniform_ with a = sqrt(5) draws from U(-1, 1) / sqrt(d_in).
    a = np.abs(np.asarray(fresh["skills"]["lora_a"]))
    assert 0.2 < a.max() <= 0.25


def test_a_matrix_learns_only_from_the_rows_of_its_task():
    site, parameters, x = site_of(adapters_of())
    slope = jax.grad(lambda p: jnp.sum(site.apply({"params": p}, x, Route(IDS)) ** 2))(parameters)
    learned = np.abs(slope["skills"]["private"]["lora_lambda"]).max(axis=(0, 2, 3)) > 0
    np.testing.assert_array_equal(learned, [True, False, True])


def test_the_matrices_have_an_axis_of_tasks_for_the_mesh():
    _, axes = parameter_shapes(Transformer(CONFIG, adapters_of()))
    skills = axes["encoder"]["layers_0"]["attention"]["query"]["skills"]
    assert skills["private"]["lora_lambda"] == PartitionSpec("splits", "tasks", "lora_rank", "lora_rank_out")
    assert skills["lora_b"] == PartitionSpec("splits", "skills", "lora_rank", "lora_out")


def drawn(model):
    rng = np.random.default_rng(2)
    shapes, _ = parameter_shapes(model)
    return jax.tree.map(lambda leaf: (rng.normal(size=leaf.shape) / 2).astype(np.float32), shapes)


@pytest.fixture(scope="module")
def trained():
    """A model of three tasks, and drawn parameters."""
    model = Transformer(CONFIG, adapters_of(sites=(SITE, "decoder/mlp/wo")))
    return model, drawn(model)


TOKENS = np.array([[3, 5, 2, 0], [7, 4, 9, 2], [8, 8, 1, 3]], np.int32)


def test_scanned_layers_compute_what_plain_layers_compute(trained):
    model, parameters = trained
    plain = jax.jit(model.apply)({"params": parameters}, TOKENS, TOKENS, IDS)
    scanned = Transformer(dataclasses.replace(CONFIG, scan_layers=True), model.adapters)
    got = jax.jit(scanned.apply)({"params": stack_layers(parameters)}, TOKENS, TOKENS, IDS)
    np.testing.assert_allclose(got, plain, rtol=1e-4, atol=1e-4)


def test_decoding_takes_the_tokens_that_the_whole_target_would_give(trained):
    model, parameters = trained
    decode = jax.jit(generate, static_argnums=(0, 4))
    found = decode(model, parameters, TOKENS, IDS, Decoding(max_length=3)).tokens
    inputs = np.pad(np.asarray(found), ((0, 0), (1, 0)))[:, :-1]
    logits = jax.jit(model.apply)({"params": parameters}, TOKENS, inputs, IDS)
    best, ended = np.asarray(logits).argmax(-1), np.cumsum(np.asarray(found) == 1, axis=1) > 0
    np.testing.assert_array_equal(np.where(ended, 0, found), np.where(ended, 0, best))
    assert not ended[:, 0].all()


def flat(tree):
    return traverse_util.flatten_dict(tree, sep="/")


def begun(trained, name):
    """The new task's parameters before the first step; all that is drawn afresh is 7."""
    model, parameters = trained
    adapters = new_adapters(VARIANTS[name], model.adapters)
    shapes = parameter_shapes(Transformer(CONFIG, adapters))[0]
    fresh = jax.tree.map(lambda leaf: np.full(leaf.shape, 7.0, np.float32), shapes)
    return adapters, flat(initial_parameters(VARIANTS[name], parameters, fresh, model.adapters.skill))


@pytest.mark.parametrize("name", ["poly", "poly-z"])
def test_a_new_task_keeps_a_and_b_and_gets_a_fresh_matrix_and_row(trained, name):
    adapters, start = begun(trained, name)
    assert adapters.skill == trained[0].adapters.skill
    old = flat(trained[1])
    for leaf in ("lora_a", "lora_b"):
        np.testing.assert_array_equal(start[f"{PLACE}/skills/{leaf}"], old[f"{PLACE}/skills/{leaf}"])
    np.testing.assert_array_equal(start[f"{PLACE}/skills/private/lora_lambda"], np.full((1, 1, 3, 3), 7.0))
    np.testing.assert_array_equal(start[f"{PLACE}/router/logits"], np.full((1, 1, 4), 7.0))
    parts = {path.removeprefix(f"{PLACE}/") for path in start if path.startswith(PLACE)}
    trains = {path for path in parts if selects(VARIANTS[name].trainable)(path)}
    own = {"router/logits", "skills/private/lora_lambda"}
    assert trains - own == ({"skills/lora_a", "skills/lora_b"} if name == "poly" else set())
    assert trains >= own


@pytest.mark.parametrize("n_splits", [1, 2])
def test_the_average_is_a_lora_whose_matrix_is_the_identity(n_splits):
    model = Transformer(CONFIG, adapters_of(n_splits=n_splits))
    parameters = drawn(model)
    adapters, start = begun((model, parameters), "poly-mu")
    assert (adapters.skill, adapters.inventory_size) == (LoRA(3, 2.0, init="kaiming"), 1)
    single = Transformer(CONFIG, adapters)
    assert {path: leaf.shape for path, leaf in start.items() if "skills" in path} == {
        path: leaf.shape for path, leaf in flat(parameter_shapes(single)[0]).items() if "skills" in path
    }
    skills = flat(parameters)
    expected_b = np.asarray(skills[f"{PLACE}/skills/lora_b"]).mean(axis=1, keepdims=True)
    np.testing.assert_allclose(start[f"{PLACE}/skills/lora_b"], expected_b, rtol=1e-5)
    np.testing.assert_array_equal(start[f"{PLACE}/skills/lora_a"], skills[f"{PLACE}/skills/lora_a"])


def test_a_row_from_old_tasks_brings_the_mean_of_their_matrices(trained):
    model, parameters = trained
    rows = flat(averaged_rows(model, parameters, [2, 0], 1))
    old = flat(parameters)
    for path, axis in ((f"{PLACE}/skills/private/lora_lambda", 1), (f"{PLACE}/router/logits", 0)):
        mean = (np.take(old[path], [2], axis) + np.take(old[path], [0], axis)) / 2
        np.testing.assert_allclose(rows[path], mean, rtol=1e-6)
    assert not any(path.endswith(("lora_a", "lora_b")) for path in rows)


def test_a_private_skill_of_c_poly_does_not_come_with_the_row():
    model = Transformer(CONFIG, adapters_of(skill=LoRA(), private_skill=LoRA()))
    assert not any("private" in path for path in flat(averaged_rows(model, drawn(model), [0], 1)))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"private_skill": LoRA()}, "Adapters.private_skill is LoRA, and with MTLLoRA each task has"),
        ({"router": PrivateRouter()}, "PrivateRouter gives each task a skill of its own, and all skills"),
        ({"router": SMEARRouter()}, "SMEARRouter needs no task, and MTLLoRA has parameters of each task"),
        ({"router": TokenRouter()}, "MTLLoRA has no method `apply_by_token`; use LoRA or IA3"),
        ({"skill": LoRA(), "private_skill": MTLLoRA()}, "Adapters.private_skill is MTLLoRA, whose skills"),
    ],
)
def test_parts_that_a_matrix_of_each_task_does_not_go_with_are_refused_in_one_line(settings, message):
    with pytest.raises(UserError, match=message) as caught:
        adapters_of(**settings)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"rank": 0}, "MTLLoRA.rank is 0"),
        ({"alpha": float("nan")}, "MTLLoRA.alpha is nan"),
        ({"dropout": 1.0}, "MTLLoRA.dropout is 1.0"),
    ],
)
def test_settings_without_meaning_are_refused(settings, message):
    with pytest.raises(UserError, match=message):
        MTLLoRA(**settings)


def test_no_average_row_answers_for_a_task_without_a_matrix():
    from poly_jax.evaluation.unknown_tasks import check_rows, serves_any_task

    adapters = adapters_of(router=AverageRouter())
    assert not serves_any_task(adapters)
    with pytest.raises(UserError, match="in runs/mtl each task has a matrix of its own beside its row"):
        check_rows(adapters, "runs/mtl")
