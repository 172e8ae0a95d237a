"""The Indian Buffet Process prior against a direct count of arXiv 2202.13914, eq. 4, on small matrices."""

import collections
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from poly_jax.errors import UserError
from poly_jax.routing.fixed import AverageRouter
from poly_jax.routing.learned import LearnedRouter
from poly_jax.training.ibp_prior import IBPPrior, ibp_negative_log_prior

prior = jax.jit(ibp_negative_log_prior, static_argnums=1)


def counted(z, alpha):
    """Compute P(Z) with integer factorials and a dictionary that counts the histories of the columns."""
    n_tasks = len(z)
    columns = [tuple(column) for column in np.asarray(z, int).T if any(column)]
    p = alpha ** len(columns) * math.exp(-alpha * sum(1 / i for i in range(1, n_tasks + 1)))
    for column in columns:
        m = sum(column)
        p *= math.factorial(n_tasks - m) * math.factorial(m - 1) / math.factorial(n_tasks)
    for times in collections.Counter(columns).values():
        p /= math.factorial(times)
    return p


@pytest.mark.parametrize("alpha", [0.5, 1.0, 3.0])
def test_every_binary_matrix_of_three_tasks_and_three_skills_has_the_counted_probability(alpha):
    matrices = np.array(
        [np.reshape(bits, (3, 3)) for bits in itertools.product((0, 1), repeat=9)], np.float32
    )
    got = prior(matrices, alpha)
    expected = [-math.log(counted(z, alpha)) for z in matrices]
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-4)


def test_the_prior_of_a_matrix_equals_that_computed_by_hand():
    """Two columns have one history, one another, and one is empty: K = 3, K_h! = 2, m = 2, 2, 1."""
    z = np.array([[1, 1, 0, 0], [1, 1, 1, 0], [0, 0, 0, 0]], np.float32)
    p = 2.0**3 / 2 * math.exp(-2 * (1 + 1 / 2 + 1 / 3)) * (1 / 6) * (1 / 6) * (2 / 6)
    np.testing.assert_allclose(prior(z, 2.0), -math.log(p), rtol=1e-5)


def test_the_probabilities_of_all_matrices_of_one_task_add_up_to_one():
    """Matrices that differ only in column order count once: there is one for each number of full columns."""
    rows = [np.arange(12)[None] < k for k in range(13)]
    total = sum(float(jnp.exp(-prior(row.astype(np.float32), 1.5))) for row in rows)
    np.testing.assert_allclose(total, 1, atol=1e-4)


def test_the_order_of_skills_and_tasks_does_not_matter():
    rng = np.random.default_rng(0)
    z = (rng.uniform(size=(6, 5)) < 0.4).astype(np.float32)
    for _ in range(3):
        shuffled = z[rng.permutation(6)][:, rng.permutation(5)]
        np.testing.assert_allclose(prior(shuffled, 2.0), prior(z, 2.0), rtol=1e-5)


def test_with_many_tasks_the_prior_is_finite_and_has_a_gradient():
    z = np.random.default_rng(0).uniform(size=(313, 8)).astype(np.float32)
    value, slope = jax.value_and_grad(ibp_negative_log_prior)(z, 3.0)
    assert np.isfinite(value)
    assert np.isfinite(slope).all()
    assert np.abs(slope).min() > 0


def test_the_gradient_is_that_of_the_continuous_form():
    z = np.random.default_rng(1).uniform(0.1, 0.9, (4, 3)).astype(np.float32)
    with jax.enable_x64(True):
        value = jax.jit(lambda z: ibp_negative_log_prior(z, 2.0))
        got = jax.grad(value)(z.astype(np.float64))
        for t, k in ((0, 0), (2, 1), (3, 2)):
            step = np.zeros((4, 3))
            step[t, k] = 1e-5
            expected = (value(z + step) - value(z - step)) / 2e-5
            np.testing.assert_allclose(got[t, k], expected, rtol=1e-4)


@pytest.mark.parametrize("z", [np.zeros((3, 2)), np.ones((3, 2)), np.eye(3)])
def test_allocations_of_only_zeros_and_ones_have_finite_gradients(z):
    assert np.isfinite(jax.grad(ibp_negative_log_prior)(z.astype(np.float32), 1.0)).all()


def test_the_loss_is_the_mean_over_routers_and_heads_of_the_rounded_allocations():
    rng = np.random.default_rng(2)
    apart, scanned = (rng.normal(size=shape).astype(np.float32) for shape in ((4, 2, 3), (2, 4, 1, 3)))
    tree = {
        "router": {"logits": apart},
        "encoder": {"layers": {"mlp": {"router": {"logits": scanned}, "wi": {"skills": {"ia3": apart}}}}},
    }
    matrices = [apart[:, 0], apart[:, 1], scanned[0, :, 0], scanned[1, :, 0]]
    expected = np.mean([-math.log(counted(logits > 0, 3.0)) for logits in matrices])
    value, slope = jax.value_and_grad(IBPPrior())(tree)
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    assert np.abs(slope["router"]["logits"]).max() > 0
    assert not np.any(slope["encoder"]["layers"]["mlp"]["wi"]["skills"]["ia3"])


@pytest.mark.parametrize(
    ("router", "named"),
    [
        (AverageRouter(), "the run has AverageRouter; bind train.prior = None"),
        (LearnedRouter(scores="l2"), "the run has LearnedRouter with scores 'l2'"),
    ],
)
def test_routers_without_an_allocation_are_reported_by_name(router, named):
    IBPPrior().check(LearnedRouter(scores="straight_through"))
    with pytest.raises(UserError, match=named):
        IBPPrior().check(router)


def test_a_concentration_of_zero_is_reported_by_name():
    with pytest.raises(UserError, match="concentration is 0; it must be above 0"):
        IBPPrior(concentration=0)
