"""Measures of a router against numbers computed by hand."""

import math

import numpy as np
import pytest

from poly_jax.analysis.statistics import effective_skills, mean, shares, statistics, usage
from poly_jax.weights.parameter_names import in_order, layer_of

ONE_HOT = np.eye(4)[:, None, :]
EQUAL = np.full((4, 2, 4), 0.25)


def test_tasks_with_a_skill_each_are_sparse_and_specialised_and_use_all_skills():
    found = statistics(ONE_HOT)
    assert found.effective_skills == pytest.approx(1)
    assert (found.sparsity, found.usage_entropy, found.specialisation) == pytest.approx((1, 1, 1))


def test_equal_shares_are_neither_sparse_nor_specialised():
    found = statistics(EQUAL)
    assert found.effective_skills == pytest.approx(4)
    assert (found.sparsity, found.usage_entropy, found.specialisation) == pytest.approx((0, 1, 0))


def test_tasks_that_all_have_the_same_skill_are_sparse_and_use_one():
    found = statistics(np.tile(np.eye(4)[2], (3, 2, 1)))
    assert (found.sparsity, found.usage_entropy, found.specialisation) == pytest.approx((1, 0, 0))


def test_the_statistics_of_a_mix_equal_those_computed_by_hand():
    # The shares are 3/4, 1/4 and 1/4, 3/4: usage is equal, and H is the entropy of a coin with p = 1/4.
    entropy = -(0.75 * math.log2(0.75) + 0.25 * math.log2(0.25))
    found = statistics(np.array([[[0.6, 0.2]], [[0.1, 0.3]]]))
    assert found.sparsity == pytest.approx(1 - entropy)
    assert found.usage_entropy == pytest.approx(1)
    assert found.specialisation == pytest.approx(1 - entropy)
    assert found.effective_skills == pytest.approx(2**entropy)


def test_discreteness_is_one_minus_the_binary_entropy_of_the_allocation():
    z = np.array([[[0.5, 1.0]], [[0.0, 0.25]]])
    entropy = -(0.75 * math.log2(0.75) + 0.25 * math.log2(0.25))
    found = statistics(z + 0.1, z)
    assert found.discreteness == pytest.approx(1 - (1 + entropy) / 4)
    assert found.active == pytest.approx(2 / 4)
    assert math.isnan(statistics(z + 0.1).discreteness)


def test_shares_are_of_absolute_weights_and_are_zero_where_all_weights_are():
    np.testing.assert_allclose(
        shares(np.array([[[-3.0, 1.0]], [[0.0, 0.0]]])), [[[0.75, 0.25]], [[0.0, 0.0]]]
    )
    np.testing.assert_array_equal(effective_skills(np.zeros((1, 1, 2))), [[0]])


def test_usage_is_the_mean_share_over_tasks_for_each_head():
    weights = np.array([[[2.0, 2.0], [1.0, 0.0]], [[1.0, 0.0], [0.0, 3.0]]])
    np.testing.assert_allclose(usage(weights), [[0.75, 0.25], [0.5, 0.5]])


def test_with_one_skill_sparsity_entropy_and_specialisation_are_undefined():
    found = statistics(np.ones((3, 2, 1)))
    assert found.effective_skills == pytest.approx(1)
    assert all(math.isnan(x) for x in (found.sparsity, found.usage_entropy, found.specialisation))


def test_the_mean_averages_every_measure():
    both = mean([statistics(ONE_HOT), statistics(EQUAL)])
    assert both.effective_skills == pytest.approx(2.5)
    assert both.sparsity == pytest.approx(0.5)


def test_layers_are_read_from_router_and_parameter_paths_and_ordered_by_number():
    assert layer_of("encoder/layers_10/mlp/wo/skills/lora_a") == "encoder/layers_10"
    assert layer_of("decoder/layers_0") == "decoder/layers_0"
    assert layer_of("encoder/router/logits") == "encoder"
    assert layer_of("router/logits") == "model"
    places = ["decoder/layers_0", "encoder/layers_10", "encoder/layers_2", "model"]
    assert in_order(places) == ["model", "encoder/layers_2", "encoder/layers_10", "decoder/layers_0"]
