"""The learned router's modes against NumPy: arXiv 2202.13914 (eq. 2), 2211.03831, 1611.00712."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from poly_jax.errors import UserError
from poly_jax.routing.learned import LearnedRouter
from poly_jax.routing.router import Sizes

TASKS, SPLITS, SKILLS = 4, 2, 3
ROWS = np.array([3, 0, 3, 1], np.int32)


def table(seed=0, scale=1.5):
    return np.random.default_rng(seed).normal(scale=scale, size=(TASKS, SPLITS, SKILLS)).astype(np.float32)


def draws(seed=1, rows=len(ROWS)):
    return np.random.default_rng(seed).uniform(0.02, 0.98, (rows, SPLITS, SKILLS)).astype(np.float32)


@functools.cache
def compiled(router, n_draws):
    """Jitted weights, given the uniform draws in the order in which the router asks for them."""

    @jax.jit
    def run(logits, task_ids, *uniforms):
        left = list(uniforms)

        def uniform(shape):
            drawn = left.pop(0)
            assert drawn.shape == tuple(shape)
            return drawn

        source = uniform if n_draws is not None else None
        weights = router.weights({"logits": logits}, task_ids, Sizes(*logits.shape), source)
        assert not left
        return weights

    return run


def trained(router, logits, *uniforms, task_ids=ROWS):
    return np.asarray(compiled(router, len(uniforms))(logits, task_ids, *uniforms))


def evaluated(router, logits, task_ids=ROWS):
    return np.asarray(compiled(router, None)(logits, task_ids))


def sigmoid(x):
    return 1 / (1 + np.exp(-np.asarray(x, np.float64)))


def normalised(z):
    return z / (z.sum(-1, keepdims=True) + 1e-12)


def close(got, expected):
    np.testing.assert_allclose(got, expected, rtol=2e-5, atol=1e-6)


def test_fresh_logits_are_uniform_within_a_thousandth():
    spec = LearnedRouter().parameters(Sizes(n_tasks=300, n_splits=8, n_skills=16))["logits"]
    values = np.asarray(spec.init(jax.random.key(0), spec.shape))
    assert values.shape == (300, 8, 16)
    assert 0.999e-3 < np.abs(values).max() <= 1e-3
    np.testing.assert_allclose(values.var(), 1e-6 / 3, rtol=0.05)


@pytest.mark.parametrize("temperature", [1.0, 0.5, 2.0])
def test_training_samples_a_relaxed_bernoulli_of_the_rows_logits(temperature):
    logits, u = table(), draws()
    z = sigmoid((logits[ROWS] + np.log(u) - np.log(1 - u)) / temperature)
    close(trained(LearnedRouter(temperature=temperature), logits, u), normalised(z))


def test_rows_of_one_task_are_sampled_separately_and_evaluated_equally():
    weights = trained(LearnedRouter(), table(), draws())
    assert np.abs(weights[0] - weights[2]).max() > 0.05
    weights = evaluated(LearnedRouter(), table())
    np.testing.assert_array_equal(weights[0], weights[2])
    assert np.abs(weights[0] - weights[1]).max() > 0.05


@pytest.mark.parametrize("temperature", [1.0, 0.5])
@pytest.mark.parametrize("sampling", [True, False])
def test_in_evaluation_scores_are_sigmoids_whether_or_not_training_samples(sampling, temperature):
    logits = table()
    router = LearnedRouter(sampling=sampling, temperature=temperature)
    close(evaluated(router, logits), normalised(sigmoid(logits[ROWS] / temperature)))


def test_without_sampling_training_and_evaluation_are_equal():
    router, logits = LearnedRouter(sampling=False), table()
    np.testing.assert_array_equal(trained(router, logits), evaluated(router, logits))


def test_weights_sum_to_one_over_skills_for_every_head():
    for weights in (trained(LearnedRouter(), table(), draws()), evaluated(LearnedRouter(), table())):
        np.testing.assert_allclose(weights.sum(-1), np.ones((len(ROWS), SPLITS)), rtol=1e-6)


def test_straight_through_rounds_and_has_the_gradient_of_the_sigmoid():
    logits, temperature = table(scale=2.0), 0.5
    router = LearnedRouter(sampling=False, temperature=temperature, scores="straight_through")
    soft = sigmoid(logits[ROWS] / temperature)
    hard = np.round(soft)
    assert hard.sum(-1).min() >= 1, "rows without a skill would make this test meaningless"
    close(trained(router, logits), normalised(hard))
    close(evaluated(router, logits), normalised(hard))
    # d/dZ of sum(c * w): the normalisation is differentiated at the rounded scores, rounding as the sigmoid.
    c = np.random.default_rng(5).normal(size=hard.shape)
    total = hard.sum(-1, keepdims=True)
    by_scores = c / total - (c * hard).sum(-1, keepdims=True) / total**2
    expected = np.zeros_like(logits, np.float64)
    np.add.at(expected, ROWS, by_scores * soft * (1 - soft) / temperature)
    got = jax.grad(lambda logits: jnp.sum(compiled(router, 0)(logits, ROWS) * c))(logits)
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5)


def test_straight_through_rounds_the_sample():
    logits, u = table(), draws(2)
    hard = np.round(sigmoid(logits[ROWS] + np.log(u) - np.log(1 - u)))
    router = LearnedRouter(scores="straight_through", average_correction=True)
    close(trained(router, logits, u), hard * np.sqrt(SPLITS / SKILLS))


def test_l2_weights_are_logits_of_unit_length():
    logits = table()
    router = LearnedRouter(scores="l2")
    expected = logits[ROWS] / np.sqrt((logits[ROWS].astype(np.float64) ** 2).sum(-1, keepdims=True))
    assert (expected < 0).any()
    close(evaluated(router, logits), expected)
    # Only sigmoid scores are sampled, so the router asks for no draw.
    close(trained(router, logits), expected)


@pytest.mark.parametrize(("top_k", "temperature"), [(0, 1.0), (0, 0.5), (1, 1.0), (2, 0.5)])
def test_softmax_keeps_the_largest_logits(top_k, temperature):
    logits = table()
    router = LearnedRouter(scores="softmax", top_k=top_k, temperature=temperature)
    exponents = np.exp(logits[ROWS].astype(np.float64) / temperature)
    for row in exponents.reshape(-1, SKILLS):
        row[np.argsort(row)[: SKILLS - (top_k or SKILLS)]] = 0
    expected = exponents / exponents.sum(-1, keepdims=True)
    assert ((expected > 0).sum(-1) == (top_k or SKILLS)).all()
    close(evaluated(router, logits), expected)
    close(trained(router, logits), expected)
    gradient = jax.grad(lambda logits: jnp.sum(compiled(router, None)(logits, ROWS) ** 2))(logits)
    assert np.isfinite(gradient).all()


def test_softmax_keeps_only_top_k_skills_even_where_logits_are_equal():
    router = LearnedRouter(scores="softmax", top_k=2)
    weights = evaluated(router, np.zeros((TASKS, SPLITS, SKILLS), np.float32))
    assert ((weights > 0).sum(-1) == 2).all()


def test_l2_of_all_zero_logits_has_a_finite_gradient():
    router = LearnedRouter(scores="l2")
    logits = np.zeros((TASKS, SPLITS, SKILLS), np.float32)
    assert not evaluated(router, logits).any()
    gradient = jax.grad(lambda logits: jnp.sum(compiled(router, None)(logits, ROWS)[..., 0]))(logits)
    assert np.isfinite(gradient).all()


def test_scores_are_dropped_before_they_are_normalised_and_only_in_training():
    rate, logits, u = 0.4, table(), draws(3)
    router = LearnedRouter(sampling=False, logit_dropout=rate)
    kept = np.where(u >= rate, sigmoid(logits[ROWS]) / (1 - rate), 0)
    dropped = (u < rate).sum(-1)
    assert dropped.max() > 0
    assert dropped.min() < SKILLS
    got = trained(router, logits, u)
    close(got, normalised(kept))
    np.testing.assert_allclose(got.sum(-1)[dropped < SKILLS], 1, rtol=1e-6)
    close(evaluated(router, logits), normalised(sigmoid(logits[ROWS])))


def test_sampling_and_dropout_use_separate_draws():
    rate, logits, u, v = 0.3, table(), draws(4), draws(5)
    z = sigmoid(logits[ROWS] + np.log(u) - np.log(1 - u)) * (v >= rate)
    close(trained(LearnedRouter(logit_dropout=rate), logits, u, v), normalised(z))


def test_dropping_every_score_gives_no_skill_and_no_gradient():
    router, logits = LearnedRouter(sampling=False, logit_dropout=0.5), table()
    nothing_kept = np.zeros((len(ROWS), SPLITS, SKILLS), np.float32)
    assert not trained(router, logits, nothing_kept).any()
    gradient = jax.grad(lambda logits: jnp.sum(compiled(router, 1)(logits, ROWS, nothing_kept)))(logits)
    assert not np.asarray(gradient).any()


def test_the_shared_skill_is_always_on_and_normalised_with_the_other_skills():
    rate, logits, u = 0.5, table(), draws(6)
    router = LearnedRouter(sampling=False, shared_skill=True, logit_dropout=rate)
    z = sigmoid(logits[ROWS])
    z[..., -1] = 1
    close(evaluated(router, logits), normalised(z))
    # Dropout is not applied to the shared skill.
    z = np.where(u >= rate, sigmoid(logits[ROWS]) / (1 - rate), 0)
    z[..., -1] = 1
    close(trained(router, logits, u), normalised(z))
    gradient = jax.grad(lambda logits: jnp.sum(compiled(router, None)(logits, ROWS)[..., 0]))(logits)
    assert not np.asarray(gradient)[..., -1].any()
    assert np.asarray(gradient)[ROWS, :, 0].all()


def test_average_correction_scales_by_splits_over_skills_instead_of_normalising():
    logits, u = table(), draws(7)
    router = LearnedRouter(average_correction=True)
    factor = np.sqrt(SPLITS) / np.sqrt(SKILLS)
    close(evaluated(router, logits), sigmoid(logits[ROWS]) * factor)
    close(trained(router, logits, u), sigmoid(logits[ROWS] + np.log(u) - np.log(1 - u)) * factor)


@pytest.mark.parametrize("scores", ["sigmoid", "straight_through"])
def test_draws_of_zero_and_one_give_finite_weights_and_gradients(scores):
    router, logits = LearnedRouter(scores=scores), table(scale=1e-3)
    u = np.ones((len(ROWS), SPLITS, SKILLS), np.float32)
    u[..., 0] = 0
    u[:2, :, 1] = np.finfo(np.float32).tiny
    u[2:, :, 1] = np.nextafter(np.float32(1), np.float32(0))

    def loss(logits):
        weights = compiled(router, 1)(logits, ROWS, u)
        return jnp.sum(weights**2), weights

    gradient, weights = jax.grad(loss, has_aux=True)(logits)
    assert np.isfinite(weights).all()
    assert np.isfinite(gradient).all()
    np.testing.assert_allclose(weights[:2], np.broadcast_to([0, 0, 1], (2, SPLITS, SKILLS)), atol=1e-5)
    np.testing.assert_allclose(weights[2:], np.broadcast_to([0, 0.5, 0.5], (2, SPLITS, SKILLS)), atol=1e-5)


@pytest.mark.parametrize("draw", [0.0, 1.0])
def test_equal_extreme_draws_for_all_skills_leave_an_even_mix(draw):
    u = np.full((len(ROWS), SPLITS, SKILLS), draw, np.float32)
    weights = trained(LearnedRouter(), table(scale=1e-3), u)
    np.testing.assert_allclose(weights, np.full(u.shape, 1 / SKILLS), rtol=1e-2)


def test_only_the_rows_of_the_batchs_tasks_have_a_gradient():
    got = jax.grad(lambda logits: jnp.sum(compiled(LearnedRouter(), None)(logits, ROWS)[..., 0]))(table())
    used = np.asarray(got).any(axis=(1, 2))
    np.testing.assert_array_equal(used, [True, True, False, True])


def test_bfloat16_logits_are_mixed_in_float32():
    weights = compiled(LearnedRouter(), None)(jnp.asarray(table(), jnp.bfloat16), ROWS)
    assert weights.dtype == jnp.float32


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"scores": "sigmod"}, "scores is 'sigmod'; use one of sigmoid, straight_through, l2, softmax"),
        ({"temperature": 0.0}, "temperature is 0.0; it must be above 0"),
        ({"temperature": -1.0}, "temperature is -1.0"),
        ({"temperature": float("inf")}, "temperature is inf"),
        ({"logit_dropout": 1.0}, "logit_dropout is 1.0; it must be in"),
        ({"logit_dropout": -0.1}, "logit_dropout is -0.1"),
        ({"top_k": 2}, "top_k is 2; it needs LearnedRouter.scores = 'softmax'"),
        ({"top_k": -1, "scores": "softmax"}, "top_k is -1; it must be 0"),
    ],
)
def test_impossible_settings_are_refused_by_name(settings, named):
    with pytest.raises(UserError, match=named):
        LearnedRouter(**settings)


def test_keeping_more_skills_than_there_are_is_refused():
    router = LearnedRouter(scores="softmax", top_k=4)
    assert router.n_skills(4, 1) == 4
    with pytest.raises(UserError, match="top_k is 4, but the inventory has 3 skills"):
        router.n_skills(3, 1)
