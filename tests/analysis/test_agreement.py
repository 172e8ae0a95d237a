"""Agreement of a router with known skills, on routers made up to agree or not."""

import numpy as np
import pytest

from poly_jax.adapters.config import Adapters
from poly_jax.adapters.lora import LoRA
from poly_jax.analysis.agreement import agreement, similarity
from poly_jax.analysis.weights import mixing_weights, task_vectors
from poly_jax.errors import UserError
from poly_jax.routing.learned import LearnedRouter

# Three groups of four tasks; a task's skills are its group's.
SKILLS = np.repeat(np.eye(3, dtype=int), 4, axis=0)


def test_a_router_that_follows_the_skills_agrees_fully():
    vectors = SKILLS + 0.01 * np.random.default_rng(0).normal(size=SKILLS.shape)
    found = agreement(vectors, SKILLS)
    assert found.correlation > 0.99
    assert found.adjusted_rand == pytest.approx(1.0)
    assert found.permutation_p < 0.01


def test_a_router_that_ignores_the_skills_does_not():
    found = agreement(np.random.default_rng(1).normal(size=(12, 40)), SKILLS)
    assert abs(found.correlation) < 0.4
    assert found.permutation_p > 0.05


def test_similarity_is_the_correlation_of_two_tasks_weights():
    vectors = np.array([[1.0, 2.0, 3.0], [2.0, 4.0, 6.0], [3.0, 2.0, 1.0]])
    np.testing.assert_allclose(similarity(vectors)[0], [1.0, 1.0, -1.0])


def test_weights_are_the_normalised_sigmoid_of_every_routers_logits():
    logits = np.random.default_rng(2).normal(size=(2, 5, 1, 3))
    parameters = {
        "encoder": {
            "layers_0": {"mlp": {"wo": {"router": {"logits": logits[0]}}}},
            "layers_1": {"mlp": {"wo": {"router": {"logits": logits[1]}}}},
        }
    }
    adapters = Adapters(LoRA(), LearnedRouter(), n_tasks=5, n_skills=3)
    weights = mixing_weights(adapters, parameters)
    sigmoid = 1 / (1 + np.exp(-logits))
    expected = sigmoid / sigmoid.sum(-1, keepdims=True)
    np.testing.assert_allclose(weights["encoder/layers_1/mlp/wo"], expected[1], atol=1e-6)
    assert task_vectors(weights).shape == (5, 6)
    scanned = {"encoder": {"layers": {"mlp": {"wo": {"router": {"logits": logits}}}}}}
    again = mixing_weights(adapters, scanned)
    assert list(again) == list(weights)
    np.testing.assert_array_equal(task_vectors(again), task_vectors(weights))


def test_a_fixed_router_has_no_weights_to_show():
    with pytest.raises(UserError, match="no parameters"):
        mixing_weights(Adapters(LoRA(), LearnedRouter(), n_tasks=2), {})
