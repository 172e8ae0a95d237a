"""Rows drawn once: the same in every run and mixture, another's for another task."""

import numpy as np

from poly_jax.adapters.config import Adapters
from poly_jax.adapters.lora import LoRA
from poly_jax.routing.random_rows import RandomRouter
from poly_jax.routing.router import Sizes

IDS = np.array([2, 0, 2, 1])


def rows(names, ids=IDS, seed=0, h=2, k=4):
    router = RandomRouter(seed).for_tasks(names) if names else RandomRouter(seed)
    return np.asarray(router.weights({}, ids, Sizes(len(names), h, k), None))


def test_rows_are_shares_of_one_that_differ_by_task_and_head():
    weights = rows(("a", "b", "c"))
    assert weights.shape == (4, 2, 4)
    assert (weights > 0).all()
    np.testing.assert_allclose(weights.sum(-1), 1, rtol=1e-6)
    np.testing.assert_array_equal(weights[0], weights[2])
    for one, other in ((weights[0], weights[1]), (weights[0], weights[3]), (weights[0, 0], weights[0, 1])):
        assert np.abs(one - other).max() > 0.05


def test_a_row_goes_by_seed_and_name_and_not_by_id():
    abc, new = rows(("a", "b", "c")), rows(("b", "c", "d"))
    np.testing.assert_array_equal(abc[0], new[3])
    assert np.abs(abc[1] - rows(("x",), np.array([0]))[0]).max() > 0.05
    assert np.abs(abc - rows(("a", "b", "c"), seed=1)).max() > 0.05


def test_mixes_are_uniform_over_all_mixes():
    """Dirichlet(1, 1, 1): mean 1/3, variance 2/36 of every share."""
    weights = rows((), np.arange(3000), h=2, k=3).reshape(-1, 3)
    np.testing.assert_allclose(weights.mean(0), 1 / 3, atol=0.01)
    np.testing.assert_allclose(weights.var(0), 2 / 36, rtol=0.05)


def test_adapters_tell_it_the_names_and_it_has_no_parameters():
    adapters = Adapters(LoRA(), RandomRouter(), n_tasks=1, n_skills=5).for_tasks(["a", "b", "c"])
    assert (adapters.n_tasks, adapters.inventory_size, adapters.router.parameters(adapters.sizes)) == (
        3,
        5,
        {},
    )
    np.testing.assert_array_equal(
        adapters.router.weights({}, IDS, Sizes(3, 2, 4), None), rows(("a", "b", "c"))
    )
