"""Routers that look at inputs, against the formulas of their papers in NumPy."""

import jax.numpy as jnp
import numpy as np
import pytest

from poly_jax.adapters.config import Adapters
from poly_jax.adapters.ia3 import IA3
from poly_jax.adapters.lora import LoRA
from poly_jax.adapters.skill import Skill
from poly_jax.errors import UserError
from poly_jax.routing.arrow import ArrowRouter, prototypes
from poly_jax.routing.load import load_statistics
from poly_jax.routing.phatgoose import PHATGOOSERouter
from poly_jax.routing.router import Sizes
from poly_jax.routing.smear import SMEARRouter
from poly_jax.routing.token_router import TokenRouter

SIZES = Sizes(n_tasks=4, n_splits=1, n_skills=4)
WIDTH = 6
ROUTERS = (TokenRouter(), ArrowRouter(), PHATGOOSERouter(), SMEARRouter())


def draw(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


def softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def softmax_over_largest(scores, k):
    """Each row on its own: the k largest scores, and their softmax."""
    out = np.zeros_like(scores)
    for place in np.ndindex(scores.shape[:-1]):
        best = np.argsort(scores[place])[::-1][:k]
        out[place][best] = softmax(scores[place][best])
    return out


def standardize(x):
    return (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5)


def weights_of(router, parameter, inputs, tasks=None, uniform=None):
    (name,) = router.input_parameters(SIZES, WIDTH)
    tasks = np.zeros(inputs.shape[:-1], int) if tasks is None else tasks
    arrays = {name: jnp.asarray(parameter, jnp.float32)}
    return router.input_weights(arrays, jnp.asarray(inputs, jnp.float32), tasks, SIZES, uniform)


@pytest.mark.parametrize("router", ROUTERS, ids=lambda router: type(router).__name__)
def test_the_parameters_of_a_site_have_its_width_behind_the_axis_of_skills(router):
    (spec,) = router.input_parameters(SIZES, WIDTH).values()
    assert spec.shape == (4, WIDTH)
    assert spec.axes == ("skills", "lora_in")


def test_a_token_router_is_the_softmax_of_one_product():
    kernel, x = draw(4, WIDTH), draw(2, 3, WIDTH, seed=1)
    np.testing.assert_allclose(weights_of(TokenRouter(), kernel, x), softmax(x @ kernel.T), rtol=1e-5)
    hot = weights_of(TokenRouter(temperature=0.5), kernel, x)
    np.testing.assert_allclose(hot, softmax(2 * x @ kernel.T), rtol=1e-5)
    few = weights_of(TokenRouter(top_k=2), kernel, x)
    np.testing.assert_allclose(few, softmax_over_largest(x @ kernel.T, 2), rtol=1e-5)


def test_arrow_compares_absolute_products_and_keeps_the_largest():
    vectors, x = draw(4, WIDTH), draw(2, 3, WIDTH, seed=1)
    found = weights_of(ArrowRouter(top_k=2, temperature=0.7), vectors, x)
    np.testing.assert_allclose(found, softmax_over_largest(np.abs(x @ vectors.T) / 0.7, 2), rtol=1e-5)
    np.testing.assert_allclose(found, weights_of(ArrowRouter(2, 0.7), -vectors, x), rtol=1e-6)


@pytest.mark.parametrize("rank", [1, 2, 5])
def test_a_prototype_is_the_first_singular_vector_of_the_update_on_the_side_of_the_inputs(rank):
    a, b = draw(3, 9, rank), draw(3, rank, 7, seed=1)
    found = np.asarray(prototypes(jnp.asarray(a, jnp.float32), jnp.asarray(b, jnp.float32)))
    for skill in range(3):
        vector = np.linalg.svd(a[skill] @ b[skill])[0][:, 0]
        np.testing.assert_allclose(found[skill] * np.sign(found[skill] @ vector), vector, atol=1e-5)


def test_prototypes_of_padded_tiny_and_absent_updates_are_finite():
    a, b = draw(3, 9, 2), draw(3, 2, 7, seed=1)
    alone = np.asarray(prototypes(*(jnp.asarray(x, jnp.float32) for x in (a, b))))
    # A skill of lower rank is padded with zeros; scaling an update does not change its directions.
    padded = (np.pad(a, ((0, 0), (0, 0), (0, 3))), np.pad(b, ((0, 0), (0, 3), (0, 0))))
    for left, right in (padded, (1e-12 * a, 1e-12 * b)):
        found = np.asarray(prototypes(jnp.asarray(left, jnp.float32), jnp.asarray(right, jnp.float32)))
        np.testing.assert_allclose(np.abs((found * alone).sum(-1)), 1, atol=1e-5)
    assert not np.any(prototypes(jnp.asarray(a, jnp.float32), jnp.zeros((3, 2, 7))))


def test_arrow_reads_its_prototypes_from_the_skills_of_scanned_layers_too():
    a, b = draw(2, 1, 3, 9, 2), draw(2, 1, 3, 2, 7, seed=1)
    found = ArrowRouter().from_skills({"lora_a": a, "lora_b": b})["prototypes"]
    vector = np.linalg.svd(a[1, 0, 2] @ b[1, 0, 2])[0][:, 0]
    assert found.shape == (2, 3, 9)
    np.testing.assert_allclose(np.abs(found[1, 2] @ vector), 1, atol=1e-5)


def test_phatgoose_opens_the_gate_of_the_tasks_own_skill_in_training():
    gates, x, tasks = draw(4, WIDTH), draw(2, 3, WIDTH, seed=1), np.array([[0, 0, 3], [2, 2, 1]])
    found = np.asarray(weights_of(PHATGOOSERouter(), gates, x, tasks, uniform=lambda shape: jnp.zeros(shape)))
    for place in np.ndindex(2, 3):
        own = tasks[place]
        assert np.count_nonzero(found[place]) == 1
        np.testing.assert_allclose(found[place][own], 1 / (1 + np.exp(-gates[own] @ x[place])), rtol=1e-5)


def test_phatgoose_compares_standardized_gates_and_inputs_in_evaluation():
    gates, x = 3 + draw(4, WIDTH), 5 * draw(2, 3, WIDTH, seed=1)
    scores = standardize(x) @ standardize(gates).T / np.sqrt(WIDTH)
    np.testing.assert_allclose(
        weights_of(PHATGOOSERouter(), gates, x), softmax_over_largest(scores, 2), rtol=1e-4
    )
    everything = weights_of(PHATGOOSERouter(top_k=0), gates, x)
    np.testing.assert_allclose(everything, softmax(scores), rtol=1e-4)


def test_smear_is_the_softmax_of_the_standardized_mean():
    kernel, mean = draw(4, WIDTH), draw(3, WIDTH, seed=1)
    found = weights_of(SMEARRouter(), kernel, mean)
    np.testing.assert_allclose(found, softmax(standardize(mean) @ kernel.T), rtol=1e-5)


@pytest.mark.parametrize("h", [1, 2])
def test_lora_adds_the_weighted_outputs_of_skills_at_every_token(h):
    skill = LoRA(rank=2, alpha=3.0)
    a, b = draw(h, 3, 6 // h, 2), draw(h, 3, 2, 4 // h, seed=1)
    x, y, w = draw(2, 5, 6, seed=2), draw(2, 5, 4, seed=3), softmax(draw(2, 5, h, 3, seed=4))
    expected = y.copy()
    for row, token, k in np.ndindex(2, 5, 3):
        hidden = x[row, token] @ np.concatenate(a[:, k])
        each = [w[row, token, q, k] * hidden @ b[q, k] for q in range(h)]
        expected[row, token] += 1.5 * np.concatenate(each)
    arrays = {"lora_a": jnp.asarray(a, jnp.float32), "lora_b": jnp.asarray(b, jnp.float32)}
    x, y, w = (jnp.asarray(array, jnp.float32) for array in (x, y, w))
    stacked = skill.side_by_side(arrays)
    for form in (stacked, skill.kept(stacked, x.dtype)):
        np.testing.assert_allclose(skill.apply_by_token(form, w, x, y), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("h", [1, 2])
def test_ia3_rescales_every_token_by_its_own_mix_of_vectors(h):
    v, y, w = draw(h, 3, 4 // h), draw(2, 6, 4, seed=1), softmax(draw(2, 6, h, 3, seed=2))
    expected = y.copy()
    for row, token in np.ndindex(2, 6):
        expected[row, token] *= np.concatenate([w[row, token, q] @ v[q] for q in range(h)])
    stacked = IA3().side_by_side({"ia3": jnp.asarray(v, jnp.float32)})
    y, w = jnp.asarray(y, jnp.float32), jnp.asarray(w, jnp.float32)
    np.testing.assert_allclose(IA3().apply_by_token(stacked, w, None, y), expected, rtol=1e-5, atol=1e-6)


def test_the_load_of_skills_leaves_padding_out():
    weights = jnp.asarray([[[0.5, 0.5, 0.0], [0.1, 0.9, 0.0]], [[0.0, 0.0, 1.0], [1.0, 0.0, 0.0]]])
    present = jnp.asarray([[True, True], [True, False]])
    found = load_statistics(weights, present)
    np.testing.assert_allclose(found["share"], [1 / 3, 1 / 3, 1 / 3], rtol=1e-6)
    np.testing.assert_allclose(found["weight"], [0.2, 1.4 / 3, 1 / 3], rtol=1e-6)
    entropies = [np.log(2), -(0.1 * np.log(0.1) + 0.9 * np.log(0.9)), 0]
    np.testing.assert_allclose(found["entropy"], np.mean(entropies), rtol=1e-5)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"granularity": "layer"}, r"TokenRouter reads the input of each site; bind .* = 'fine'"),
        ({"n_splits": 2}, r"n_splits is 2, and TokenRouter mixes whole skills; bind Adapters.n_splits = 1"),
    ],
)
def test_adapters_that_an_input_router_cannot_mix_are_refused(settings, message):
    with pytest.raises(UserError, match=message):
        Adapters(LoRA(), TokenRouter(), n_tasks=2, **settings)


def test_a_kind_of_skill_without_a_form_for_tokens_is_refused():
    class Plain(Skill):
        pass

    with pytest.raises(UserError, match=r"Plain has no method `apply_by_token`; use LoRA or IA3"):
        Adapters(Plain(), TokenRouter(), n_tasks=2)
    Adapters(Plain(), SMEARRouter(), n_tasks=2)
    # A skill that was written before the third method was needed is told which one it lacks.
    Plain.side_by_side = Plain.apply_by_token = lambda *_: None
    with pytest.raises(UserError, match=r"Plain has no method `cheaper_by_token`"):
        Adapters(Plain(), TokenRouter(), n_tasks=2)


@pytest.mark.parametrize("router", [TokenRouter, ArrowRouter, PHATGOOSERouter])
def test_more_skills_than_there_are_cannot_be_kept(router):
    with pytest.raises(UserError, match=r"top_k is 5, but the inventory has 4 skills"):
        router(top_k=5).n_skills(4, 2)
    with pytest.raises(UserError, match=r"top_k is -1"):
        router(top_k=-1)


@pytest.mark.parametrize("router", ROUTERS, ids=lambda router: type(router).__name__)
def test_a_program_that_needs_one_mix_for_each_task_is_told_why_there_is_none(router):
    with pytest.raises(
        UserError, match=rf"{type(router).__name__} mixes skills by their input.*cannot be merged"
    ):
        router.weights({}, np.zeros(1, int), SIZES, None)
