"""A weighted prior on the routers is added to the objective and reported beside the loss."""

import dataclasses

import jax
import numpy as np
import optax
import pytest
from flax import traverse_util

from poly_jax.training.ibp_prior import IBPPrior
from poly_jax.training.update import start
from poly_jax.weights.parameter_names import is_router

PRIOR = IBPPrior(weight=0.5, concentration=2.0)


@pytest.fixture(scope="module")
def steps(update_of, tiny, key):
    """The trained tree and metrics after a step of gradient descent at rate 1, without and with a prior."""
    plain = dataclasses.replace(update_of(), optimizer=optax.sgd(1.0))
    state = start(tiny.trained, plain.optimizer)
    results = []
    for update in (plain, dataclasses.replace(plain, prior=PRIOR)):
        new, metrics = jax.jit(update)(state, tiny.frozen, tiny.batch, key)
        results.append((traverse_util.flatten_dict(new.trained, sep="/"), metrics))
    return results


def test_the_prior_moves_routers_by_its_weighted_gradient_and_does_not_move_skills(steps, tiny):
    (without, _), (with_prior, _) = steps
    slope = traverse_util.flatten_dict(jax.grad(PRIOR)(tiny.trained), sep="/")
    moved = 0
    for path, leaf in without.items():
        np.testing.assert_allclose(with_prior[path], leaf - 0.5 * slope[path], rtol=1e-4, atol=1e-5)
        moved += bool(np.any(slope[path]))
        assert is_router(path) or not np.any(slope[path])
    assert moved == 2


def test_the_prior_is_reported_and_is_not_part_of_the_reported_loss(steps, tiny):
    (_, without), (_, with_prior) = steps
    assert "prior" not in without
    np.testing.assert_allclose(with_prior["prior"], PRIOR(tiny.trained), rtol=1e-5)
    np.testing.assert_allclose(with_prior["loss"], without["loss"], rtol=1e-6)
    assert with_prior["gradient_norm"] != without["gradient_norm"]
