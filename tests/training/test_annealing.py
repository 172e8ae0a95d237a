"""Annealing of routers to equal weights for all tasks."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from poly_jax.errors import UserError
from poly_jax.routing.fixed import AverageRouter
from poly_jax.routing.learned import LearnedRouter
from poly_jax.training.annealing import anneal_to_zero, check_uniform_at_zero
from poly_jax.training.optimizer import Optimizer

STEPS, LAST = 10, 4


def run(optimizer, gradient, anneal=0):
    """Return the parameters after each of 10 steps."""
    parameters = {"router": {"logits": jnp.array([2.0, -1.0])}, "skills": {"lora_a": jnp.array([3.0])}}
    gradients = jax.tree.map(lambda leaf: jnp.full_like(leaf, gradient), parameters)
    transformation = optimizer.transformation(STEPS, anneal)
    state = transformation.init(parameters)
    update = jax.jit(transformation.update)
    seen = []
    for _ in range(STEPS):
        updates, state = update(gradients, state, parameters)
        parameters = optax.apply_updates(parameters, updates)
        seen.append(jax.tree.map(np.asarray, parameters))
    return seen


def test_without_gradients_logits_shrink_along_half_a_cosine_and_skills_do_not_change():
    seen = run(Optimizer(), gradient=0.0, anneal=LAST)
    # After the k-th of the last four steps, the logits are scaled by (1 + cos(pi k / 4)) / 2.
    left = [1.0] * 6 + [(1 + np.cos(np.pi * k / 4)) / 2 for k in (1, 2, 3)] + [0.0]
    for parameters, factor in zip(seen, left, strict=True):
        np.testing.assert_allclose(parameters["router"]["logits"], [2.0 * factor, -factor], atol=1e-6)
        np.testing.assert_array_equal(parameters["skills"]["lora_a"], [3.0])


def test_a_router_trains_as_usual_before_the_annealing_and_ends_at_exactly_zero():
    settings = Optimizer(router_learning_rate=0.1, decay="constant")
    annealed = run(settings, gradient=0.7, anneal=LAST)
    plain = run(settings, gradient=0.7)
    np.testing.assert_array_equal(annealed[-1]["router"]["logits"], [0.0, 0.0])
    np.testing.assert_array_equal(annealed[-1]["skills"]["lora_a"], plain[-1]["skills"]["lora_a"])
    for before, after in zip(plain[:6], annealed[:6], strict=True):
        np.testing.assert_allclose(after["router"]["logits"], before["router"]["logits"], rtol=1e-6)


def test_more_annealing_steps_than_training_steps_anneal_from_the_first_step():
    transformation = anneal_to_zero(2, 50)
    parameters = {"logits": jnp.array([4.0])}
    state = transformation.init(parameters)
    updates, _ = transformation.update({"logits": jnp.zeros(1)}, state, parameters)
    np.testing.assert_allclose(parameters["logits"] + updates["logits"], [2.0], rtol=1e-6)


@pytest.mark.parametrize("router", [LearnedRouter(), LearnedRouter(scores="softmax", top_k=0)])
def test_routers_that_mix_equally_at_zero_are_accepted(tiny, router):
    check_uniform_at_zero(dataclasses.replace(tiny.model.adapters, router=router))


@pytest.mark.parametrize(
    "router",
    [
        LearnedRouter(scores="l2"),
        LearnedRouter(scores="straight_through"),
        LearnedRouter(shared_skill=True),
        AverageRouter(),
    ],
)
def test_routers_that_do_not_mix_equally_at_zero_are_refused(tiny, router):
    with pytest.raises(UserError, match=r"router_anneal_steps needs a router whose weights are equal"):
        check_uniform_at_zero(dataclasses.replace(tiny.model.adapters, router=router))
