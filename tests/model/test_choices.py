"""Rank classification: scores of choices against NumPy, and against running each choice by itself."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from poly_jax.model.choices import choice_scores, scores_of_choices

# The number of tokens of each of three choices, for five rows; 0 stands for an absent choice.
LENGTHS = np.array([[4, 1, 2], [2, 3, 0], [1, 1, 4], [3, 0, 0], [2, 2, 2]])


@pytest.fixture(scope="module")
def choices():
    tokens = np.random.default_rng(5).integers(2, 40, (5, 3, 4)).astype(np.int32)
    return tokens * (np.arange(4) < LENGTHS[..., None])


def by_hand(logits, choices, length_norm):
    """Divide the sum of log-probabilities by length ^ norm, choice by choice, in float64."""
    logits = np.asarray(logits, np.float64)
    log_probs = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    scores = np.zeros(choices.shape[:2])
    for row, choice in np.ndindex(*scores.shape):
        length = np.count_nonzero(choices[row, choice])
        picked = [log_probs[row, choice, place, choices[row, choice, place]] for place in range(length)]
        scores[row, choice] = sum(picked) / max(length, 1) ** length_norm
    return scores


@pytest.mark.parametrize("length_norm", [0.0, 0.5, 1.0])
def test_a_score_is_the_summed_log_probability_divided_by_a_power_of_the_length(choices, length_norm):
    logits = np.random.default_rng(0).normal(scale=3, size=(5, 3, 4, 40)).astype(np.float32)
    scores = scores_of_choices(jnp.asarray(logits), jnp.asarray(choices), length_norm)
    np.testing.assert_allclose(scores, by_hand(logits, choices, length_norm), rtol=1e-5)


@pytest.mark.parametrize("granularity", ["fine", "coarse"])
def test_encoding_an_input_once_equals_encoding_it_with_each_choice(tiny, choices, granularity):
    model = dataclasses.replace(
        tiny.model, adapters=dataclasses.replace(tiny.adapters, granularity=granularity)
    )
    parameters = tiny.parameters_of(model)
    inputs, ids = tiny.batch["encoder_input_tokens"], tiny.batch["task_ids"]
    scores = jax.jit(lambda p, *arrays: choice_scores(model, p, *arrays))(parameters, inputs, choices, ids)
    flat = choices.reshape(15, 4)
    logits = jax.jit(lambda p, *arrays: model.apply({"params": p}, *arrays))(
        parameters,
        np.repeat(inputs, 3, axis=0),
        np.pad(flat[:, :-1], ((0, 0), (1, 0))),
        np.repeat(ids, 3),
    )
    expected = by_hand(np.asarray(logits).reshape(5, 3, 4, 40), choices, 1.0)
    there = LENGTHS > 0
    np.testing.assert_allclose(np.asarray(scores)[there], expected[there], rtol=1e-4)
    assert (np.asarray(scores)[~there] == -np.inf).all()


def test_the_best_present_choice_is_predicted_also_with_stacked_adapters(tiny, choices):
    inputs, ids = tiny.batch["encoder_input_tokens"], tiny.batch["task_ids"]
    parameters = [tiny.parameters, jax.tree.map(lambda leaf: leaf * 0.9, tiny.parameters)]

    def predict(p):
        scores = choice_scores(tiny.model, p, inputs, choices, ids)
        return jnp.argmax(scores, axis=-1), scores

    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *parameters)
    predicted, scores = jax.jit(jax.vmap(predict))(stacked)
    np.testing.assert_array_equal(predicted, np.argmax(np.where(LENGTHS > 0, scores, -1e9), axis=-1))
    assert (np.asarray(predicted)[:, 3] == 0).all()
    alone = jax.jit(predict)(parameters[1])
    np.testing.assert_array_equal(alone[0], predicted[1])
