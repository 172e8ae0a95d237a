"""Tasks without a row are mixed by the weights of the tasks that stand in for them, in given shares."""

import jax
import numpy as np
import pytest

from poly_jax.adapters.config import Adapters
from poly_jax.adapters.lora import LoRA
from poly_jax.routing.fixed import AverageRouter, PrivateRouter
from poly_jax.routing.learned import LearnedRouter
from poly_jax.routing.router import Sizes
from poly_jax.routing.stand_ins import StandInRows
from poly_jax.routing.table import TableRouter

SHARES = ((0.0, 1.0, 0.0), (1 / 3, 1 / 3, 1 / 3), (0.5, 0.0, 0.5))


def weights(known, parameters=None, n_skills=4, ids=(0, 1, 2)):
    router = StandInRows(known, 3, SHARES)
    sizes = Sizes(len(SHARES), 2, n_skills)
    return np.asarray(jax.jit(lambda ids: router.weights(parameters or {}, ids, sizes, None))(np.array(ids)))


def test_a_learned_routers_weights_are_summed_over_the_tasks_that_stand_in():
    z = np.random.default_rng(0).normal(size=(3, 2, 4)).astype(np.float32)
    w = 1 / (1 + np.exp(-z))
    w /= w.sum(-1, keepdims=True)
    found = weights(LearnedRouter(), {"logits": z})
    np.testing.assert_allclose(found, [w[1], w.mean(0), (w[0] + w[2]) / 2], rtol=1e-5)


def test_skills_that_tasks_own_are_mixed_equally():
    found = weights(PrivateRouter(), n_skills=3)
    expected = np.array([[0, 1, 0], [1 / 3, 1 / 3, 1 / 3], [0.5, 0, 0.5]])
    np.testing.assert_allclose(found, np.repeat(expected[:, None], 2, axis=1), rtol=1e-6)


def test_given_weights_are_averaged():
    table = TableRouter(rows=((1.0, 0.0), (0.0, 2.0), (1.0, 3.0)))
    found = weights(table, n_skills=2, ids=[1])
    np.testing.assert_allclose(found[0, 0], np.mean([[1, 0], [0, 1], [0.25, 0.75]], axis=0), rtol=1e-6)


def test_a_mix_that_all_tasks_share_stays_as_it_is():
    np.testing.assert_allclose(weights(AverageRouter()), np.full((2, 4), 1 / 4))


@pytest.mark.parametrize(("known", "size"), [(PrivateRouter(), 3), (LearnedRouter(), 8)])
def test_the_inventory_and_the_parameters_are_those_of_the_known_tasks(known, size):
    adapters = Adapters(LoRA(), StandInRows(known, 3, ((1.0, 0.0, 0.0),)), n_tasks=1)
    assert adapters.inventory_size == size
    shapes = {name: spec.shape for name, spec in adapters.router.parameters(adapters.sizes).items()}
    assert shapes == ({} if known == PrivateRouter() else {"logits": (3, 1, 8)})
