"""Distances from initial values, computed by hand."""

import math

import numpy as np
import pytest

from poly_jax.analysis.drift import Drift, by_kind, by_layer, by_skill, by_task, kind_of


def test_distances_equal_those_computed_by_hand():
    one = Drift.of(np.array([3.0, 4.0]), np.array([3.0, 0.0]))
    assert one.rms == pytest.approx(4 / math.sqrt(2))
    assert one.relative == pytest.approx(4 / 5)
    assert one.cosine == pytest.approx(3 / 5)


def test_an_initial_value_of_zero_has_no_relative_distance_and_no_angle():
    one = Drift.of(np.zeros(4), np.ones(4))
    assert one.rms == pytest.approx(1)
    assert math.isnan(one.relative)
    assert math.isnan(one.cosine)


def test_the_drift_of_several_arrays_is_computed_over_all_of_them():
    rng = np.random.default_rng(0)
    before, after = rng.normal(size=(2, 6)), rng.normal(size=(2, 6))
    summed = Drift.of(before[0], after[0]) + Drift.of(before[1], after[1])
    whole = Drift.of(before, after)
    assert (summed.rms, summed.cosine) == pytest.approx((whole.rms, whole.cosine))


# Two tasks, one head, three shared skills, and a private skill for each task.
INITIAL = {
    "encoder/layers_0/mlp/wo/router/logits": np.zeros((2, 1, 3)),
    "encoder/layers_0/mlp/wo/skills/lora_a": np.zeros((1, 3, 4, 2)),
    "encoder/layers_0/mlp/wo/skills/private/lora_a": np.zeros((1, 2, 4, 2)),
    "encoder/layers_1/mlp/wo/router/logits": np.zeros((2, 1, 3)),
}
TRAINED = {
    "encoder/layers_0/mlp/wo/router/logits": np.array([[[1.0, 1, 1]], [[0, 0, 0]]]),
    "encoder/layers_0/mlp/wo/skills/lora_a": np.array([0.0, 1, 2])[None, :, None, None]
    * np.ones((1, 3, 4, 2)),
    "encoder/layers_0/mlp/wo/skills/private/lora_a": np.array([3.0, 4])[None, :, None, None]
    * np.ones((1, 2, 4, 2)),
    "encoder/layers_1/mlp/wo/router/logits": np.array([[[1.0, 1, 1]], [[7, 7, 7]]]),
    "more/router/logits": np.ones((2, 1, 3)),
}


def test_drift_is_reported_by_kind_layer_task_and_skill():
    assert kind_of("encoder/layers_0/mlp/wo/skills/private/lora_a") == "own skill lora_a"
    layers = by_layer(INITIAL, TRAINED)
    assert layers["router logits", "encoder/layers_0"].rms == pytest.approx(math.sqrt(1 / 2))
    assert layers["router logits", "encoder/layers_1"].rms == pytest.approx(5)
    assert by_kind(INITIAL, TRAINED)["router logits"].count == 12
    tasks = by_task(INITIAL, TRAINED, {"logits": ("tasks", "splits", "skills")})
    assert set(tasks) == {"router logits", "own skill lora_a"}
    np.testing.assert_allclose(tasks["router logits"], [1, math.sqrt(49 / 2)])
    np.testing.assert_allclose(tasks["own skill lora_a"], [3, 4])
    np.testing.assert_allclose(by_skill(INITIAL, TRAINED, 3)["skill lora_a"], [0, 1, 2])


def test_the_drift_of_tasks_follows_the_axes_that_the_router_names():
    initial = {
        "router/logits": np.zeros((2, 1, 2)),
        "router/gate": np.zeros(2),
        # As many skills as tasks, but an array that all tasks share.
        "router/bias": np.zeros((2,)),
    }
    trained = {
        "router/logits": np.zeros((2, 1, 2)),
        "router/gate": np.array([3.0, 4]),
        "router/bias": np.ones(2),
    }
    axes = {"logits": ("tasks", "splits", "skills"), "gate": ("tasks",), "bias": ("skills",)}
    tasks = by_task(initial, trained, axes)
    assert set(tasks) == {"router logits", "router gate"}
    np.testing.assert_allclose(tasks["router gate"], [3, 4])


def test_a_factor_that_all_skills_share_is_no_drift_of_a_skill():
    initial = {
        "encoder/mlp/wo/skills/lora_a": np.zeros((1, 1, 4, 2)),
        "encoder/mlp/wo/skills/lora_b": np.zeros((1, 3, 2, 4)),
    }
    trained = {path: array + 1 for path, array in initial.items()}
    assert set(by_skill(initial, trained, 3)) == {"skill lora_b"}
