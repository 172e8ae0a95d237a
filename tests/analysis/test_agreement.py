"""Agreement of a router with known skills, for routers that are made to agree or to disagree."""

import numpy as np
import pytest

from poly_jax.adapters.config import Adapters
from poly_jax.adapters.lora import LoRA
from poly_jax.analysis.agreement import agreement, measure, similarity
from poly_jax.analysis.weights import allocations, mixing_weights, task_vectors
from poly_jax.errors import UserError
from poly_jax.routing.fixed import AverageRouter, PrivateRouter
from poly_jax.routing.learned import LearnedRouter

# Three groups of four tasks; all tasks of a group have the same skills.
SKILLS = np.repeat(np.eye(3, dtype=int), 4, axis=0)


def test_a_router_that_follows_the_skills_agrees_fully():
    vectors = SKILLS + 0.01 * np.random.default_rng(0).normal(size=SKILLS.shape)
    found = agreement(vectors, SKILLS)
    assert found.correlation > 0.99
    assert found.adjusted_rand == pytest.approx(1.0)
    assert found.permutation_p < 0.01


def test_a_router_that_ignores_the_skills_does_not_agree():
    found = agreement(np.random.default_rng(1).normal(size=(12, 40)), SKILLS)
    assert abs(found.correlation) < 0.4
    assert found.permutation_p > 0.05


def test_similarity_is_the_correlation_of_two_tasks_weights():
    vectors = np.array([[1.0, 2.0, 3.0], [2.0, 4.0, 6.0], [3.0, 2.0, 1.0]])
    np.testing.assert_allclose(similarity(vectors)[0], [1.0, 1.0, -1.0])


def test_the_weights_of_every_router_are_the_normalised_sigmoids_of_its_logits():
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


def test_a_router_without_parameters_has_one_set_of_weights_for_the_model():
    private = mixing_weights(Adapters(LoRA(), PrivateRouter(), n_tasks=3, n_splits=2), {})
    np.testing.assert_array_equal(private["model"], np.repeat(np.eye(3)[:, None], 2, axis=1))
    average = mixing_weights(Adapters(LoRA(), AverageRouter(), n_tasks=3, n_skills=4), {})
    np.testing.assert_array_equal(average["model"], np.full((3, 1, 4), 0.25))


def test_a_learned_router_without_its_parameters_is_an_error():
    with pytest.raises(UserError, match="hold no router"):
        mixing_weights(Adapters(LoRA(), LearnedRouter(), n_tasks=2), {})


def test_the_allocation_is_the_sigmoid_before_it_is_normalised():
    logits = np.random.default_rng(3).normal(size=(5, 1, 3)).astype(np.float32)
    parameters = {"router": {"logits": logits}}
    shared = LearnedRouter(temperature=2.0, shared_skill=True)
    z = allocations(Adapters(LoRA(), shared, n_tasks=5, n_skills=3), parameters)["model"]
    np.testing.assert_allclose(z[..., :2], 1 / (1 + np.exp(-logits[..., :2] / 2)), rtol=1e-6)
    np.testing.assert_array_equal(z[..., 2], 1)
    softmax = Adapters(LoRA(), LearnedRouter(scores="softmax"), n_tasks=5, n_skills=3)
    assert allocations(softmax, parameters) is None


def test_similarity_is_the_cosine_where_weights_do_not_vary():
    vectors = np.array([[1.0, 1.0], [1.0, 0.0], [0.0, 0.0]])
    assert measure(vectors) == "cosine"
    root = np.sqrt(0.5)
    np.testing.assert_allclose(similarity(vectors), [[1, root, 0], [root, 1, 0], [0, 0, 0]])
