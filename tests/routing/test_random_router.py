"""Random mixing weights that depend only on seed and task name: the same in every run and mixture."""

import numpy as np

from poly_jax.adapters.config import Adapters
from poly_jax.adapters.lora import LoRA
from poly_jax.routing.random_rows import RandomRouter
from poly_jax.routing.router import Sizes

IDS = np.array([2, 0, 2, 1])


def rows(names, ids=IDS, seed=0, h=2, k=4):
    router = RandomRouter(seed).for_tasks(names) if names else RandomRouter(seed)
    return np.asarray(router.weights({}, ids, Sizes(len(names), h, k), None))


def test_rows_sum_to_one_and_differ_by_task_and_head():
    weights = rows(("a", "b", "c"))
    assert weights.shape == (4, 2, 4)
    assert (weights > 0).all()
    np.testing.assert_allclose(weights.sum(-1), 1, rtol=1e-6)
    np.testing.assert_array_equal(weights[0], weights[2])
    for one, other in ((weights[0], weights[1]), (weights[0], weights[3]), (weights[0, 0], weights[0, 1])):
        assert np.abs(one - other).max() > 0.05


def test_a_row_depends_on_the_seed_and_the_task_name_and_not_on_the_id():
    abc, new = rows(("a", "b", "c")), rows(("b", "c", "d"))
    np.testing.assert_array_equal(abc[0], new[3])
    assert np.abs(abc[1] - rows(("x",), np.array([0]))[0]).max() > 0.05
    assert np.abs(abc - rows(("a", "b", "c"), seed=1)).max() > 0.05


def test_rows_are_uniformly_distributed_over_all_mixes():
    """In Dirichlet(1, 1, 1), every weight has mean 1/3 and variance 2/36."""
    weights = rows((), np.arange(3000), h=2, k=3).reshape(-1, 3)
    np.testing.assert_allclose(weights.mean(0), 1 / 3, atol=0.01)
    np.testing.assert_allclose(weights.var(0), 2 / 36, rtol=0.05)


def test_it_gets_the_task_names_from_the_adapters_and_has_no_parameters():
    adapters = Adapters(LoRA(), RandomRouter(), n_tasks=1, n_skills=5).for_tasks(["a", "b", "c"])
    assert (adapters.n_tasks, adapters.inventory_size, adapters.router.parameters(adapters.sizes)) == (
        3,
        5,
        {},
    )
    np.testing.assert_array_equal(
        adapters.router.weights({}, IDS, Sizes(3, 2, 4), None), rows(("a", "b", "c"))
    )
