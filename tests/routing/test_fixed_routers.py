"""Routers without parameters."""

import numpy as np
import pytest

from poly_jax.routing.fixed import AverageRouter, PrivateRouter, SharedRouter
from poly_jax.routing.learned import LearnedRouter
from poly_jax.routing.router import Sizes

ROWS = np.array([2, 0, 2], np.int32)
NEVER_DRAWN = None


@pytest.mark.parametrize("router", [AverageRouter(), SharedRouter(), PrivateRouter()])
def test_fixed_routers_have_no_parameters(router):
    assert router.parameters(Sizes(n_tasks=4, n_splits=2, n_skills=3)) == {}


def test_only_private_routers_own_a_skill_for_each_task():
    assert PrivateRouter().owns_skills
    for router in (AverageRouter(), SharedRouter(), LearnedRouter()):
        assert not router.owns_skills


def test_the_average_is_the_same_for_all_rows():
    assert AverageRouter().n_skills(requested=5, n_tasks=4) == 5
    weights = AverageRouter().weights({}, ROWS, Sizes(4, 2, 5), NEVER_DRAWN)
    np.testing.assert_allclose(weights, np.full((2, 5), 0.2), rtol=1e-6)


def test_the_shared_router_has_one_skill_of_weight_one():
    assert SharedRouter().n_skills(requested=5, n_tasks=4) == 1
    np.testing.assert_array_equal(
        SharedRouter().weights({}, ROWS, Sizes(4, 2, 1), NEVER_DRAWN), np.ones((2, 1))
    )


def test_private_rows_use_the_skill_of_their_task_in_every_head():
    assert PrivateRouter().n_skills(requested=5, n_tasks=4) == 4
    weights = PrivateRouter().weights({}, ROWS, Sizes(4, 2, 4), NEVER_DRAWN)
    expected = np.eye(4)[ROWS][:, None, :].repeat(2, axis=1)
    np.testing.assert_array_equal(weights, expected)
