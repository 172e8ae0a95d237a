"""Decoding a batch whose rows belong to different tasks."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from poly_jax.errors import UserError
from poly_jax.model.generate import Decoding, generate
from poly_jax.weights.layer_trees import stack_layers

MAX_LENGTH = 6


@pytest.fixture(scope="module")
def run(quick_jit):
    decode = quick_jit(generate, static_argnums=(0, 4))

    def run(model, parameters, inputs, task_ids, **settings):
        decoding = Decoding(max_length=MAX_LENGTH, **settings)
        return jax.tree.map(
            np.asarray, decode(model, parameters, inputs, task_ids.astype(np.int32), decoding)
        )

    return run


@pytest.fixture(scope="module")
def inputs(tiny):
    """Two padded inputs, each repeated for every task."""
    rows = np.repeat(np.asarray(tiny.batch["encoder_input_tokens"])[[0, 2]], 3, axis=0)
    return np.pad(rows, ((0, 0), (0, 4)))


TASK_IDS = np.array([0, 1, 2, 2, 1, 0])


@pytest.fixture(scope="module")
def greedy(run, tiny, inputs):
    return run(tiny.model, tiny.parameters, inputs, TASK_IDS)


def test_the_output_for_an_input_depends_on_the_task_of_its_row(greedy):
    for first in (0, 3):
        answers = {tuple(tokens) for tokens in greedy.tokens[first : first + 3]}
        assert len(answers) == 3


@pytest.mark.parametrize("settings", [{}, {"n_beams": 2}], ids=["greedy", "beams"])
def test_a_mixed_batch_decodes_as_each_task_alone(run, tiny, inputs, settings):
    mixed = run(tiny.model, tiny.parameters, inputs, TASK_IDS, **settings)
    for task in range(3):
        alone = run(tiny.model, tiny.parameters, inputs, np.full(6, task), **settings)
        rows = task == TASK_IDS
        np.testing.assert_array_equal(mixed.tokens[rows], alone.tokens[rows])
        np.testing.assert_allclose(mixed.scores[rows], alone.scores[rows], rtol=1e-4, atol=1e-4)


def test_greedy_tokens_are_the_argmax_of_logits_computed_without_cache_or_padding(
    tiny, inputs, greedy, logits_of
):
    assert not inputs[:, 7:].any()
    tokens = np.zeros((6, MAX_LENGTH), np.int32)
    scores, ended = np.zeros(6), np.zeros(6, bool)
    for place in range(MAX_LENGTH):
        batch = {
            "encoder_input_tokens": jnp.asarray(inputs[:, :7]),
            "decoder_input_tokens": jnp.asarray(np.pad(tokens, ((0, 0), (1, 0)))[:, :-1]),
            "task_ids": jnp.asarray(TASK_IDS, jnp.int32),
        }
        log_probs = jax.nn.log_softmax(logits_of(tiny.model, tiny.parameters, batch)[:, place])
        best = np.asarray(log_probs).argmax(-1)
        scores += np.where(ended, 0, np.asarray(log_probs).max(-1))
        tokens[:, place] = np.where(ended, 0, best)
        ended |= best == 1
    np.testing.assert_array_equal(greedy.tokens, tokens)
    np.testing.assert_allclose(greedy.scores, scores, rtol=1e-4, atol=1e-4)


def test_the_training_model_with_scanned_rematerialised_layers_decodes_the_same(run, tiny, inputs, greedy):
    config = dataclasses.replace(tiny.config, scan_layers=True, remat="minimal", dropout_rate=0.5)
    model = dataclasses.replace(tiny.model, config=config, train=True)
    result = run(model, stack_layers(tiny.parameters), inputs, TASK_IDS)
    np.testing.assert_array_equal(result.tokens, greedy.tokens)
    np.testing.assert_allclose(result.scores, greedy.scores, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"max_length": 0}, "max_length=0"),
        ({"n_beams": 0}, "n_beams=0 keeps no output; give 1 or more"),
        ({"n_beams": -1}, "n_beams=-1"),
        ({"length_penalty": float("nan")}, "length_penalty=nan"),
        ({"temperature": -0.5}, "temperature=-0.5"),
        ({"temperature": 1.0, "top_k": -1}, "top_k=-1"),
        ({"temperature": 1.0, "top_p": 0.0}, "top_p=0 "),
        ({"n_beams": 4, "temperature": 1.0}, "n_beams=4 and temperature=1 exclude each other"),
    ],
)
def test_impossible_settings_are_refused_before_anything_is_decoded(settings, message):
    with pytest.raises(UserError, match=message):
        Decoding(**settings)
