"""Training steps on examples with answer choices."""

import dataclasses

import jax
import numpy as np
import pytest

from poly_jax.errors import UserError
from poly_jax.model.choice_loss import ChoiceLoss
from poly_jax.model.scoring import token_log_probs
from poly_jax.weights.tree import merge


@pytest.fixture(scope="module")
def with_choices(tiny):
    """The tiny batch, in which each target is one of two or three choices."""
    targets = tiny.batch["decoder_target_tokens"]
    lengths = np.array([[3, 2], [1, 5], [2, 2], [4, 0], [5, 5], [1, 1], [3, 4], [2, 0]])
    wrong = np.random.default_rng(3).integers(2, 32, (8, 2, 5)) * (np.arange(5) < lengths[..., None])
    choices = np.concatenate([targets[:, None], wrong], axis=1).astype(np.int32)
    # In odd rows, the right choice is the second.
    choices[1::2, :2] = choices[1::2, 1::-1]
    return {**tiny.batch, "choices": choices, "labels": (np.arange(8) % 2).astype(np.int32)}


@pytest.fixture(scope="module")
def choice_update(update_of):
    return dataclasses.replace(update_of(), loss=ChoiceLoss())


@pytest.fixture(scope="module")
def stepped(tiny, choice_update, with_choices, initial, key):
    step = jax.jit(choice_update)
    return step, *step(initial(choice_update), tiny.frozen, with_choices, key)


def test_the_loss_is_the_sum_of_its_reported_terms_and_decreases(tiny, with_choices, stepped, key):
    step, state, metrics = stepped
    assert {"lm", "multiple_choice", "unlikelihood"} < set(metrics)
    terms = [float(metrics[name]) for name in ("lm", "multiple_choice", "unlikelihood")]
    np.testing.assert_allclose(metrics["loss"], sum(terms), rtol=1e-6)
    later = step(state, tiny.frozen, with_choices, key)[1]
    assert float(later["loss"]) < float(metrics["loss"])


def test_the_first_term_is_the_token_loss_of_the_right_choice(tiny, update_of, initial, stepped, key):
    update = update_of()
    metrics = jax.jit(update)(initial(update), tiny.frozen, tiny.batch, key)[1]
    np.testing.assert_allclose(stepped[2]["lm"], metrics["loss"], rtol=1e-5)


def test_the_third_term_equals_the_unlikelihood_from_running_the_wrong_choices_separately(
    tiny, with_choices, stepped
):
    choices = with_choices["choices"]
    wrong = choices[np.arange(3) != with_choices["labels"][:, None]]
    logits = jax.jit(lambda *arrays: tiny.model.apply({"params": merge(tiny.frozen, tiny.trained)}, *arrays))(
        np.repeat(tiny.batch["encoder_input_tokens"], 2, axis=0),
        np.pad(wrong[:, :-1], ((0, 0), (1, 0))),
        np.repeat(tiny.batch["task_ids"], 2),
    )
    probabilities = np.exp(np.asarray(token_log_probs(logits, wrong), np.float64))[wrong > 0]
    np.testing.assert_allclose(stepped[2]["unlikelihood"], -np.log(1.01 - probabilities).mean(), rtol=1e-5)


def test_microbatches_with_different_numbers_of_tokens_and_choices_add_up(
    tiny, choice_update, with_choices, stepped, initial, key
):
    update = dataclasses.replace(choice_update, microbatches=4)
    state, metrics = jax.jit(update)(initial(update), tiny.frozen, with_choices, key)
    _, whole, expected = stepped
    for name, value in expected.items():
        np.testing.assert_allclose(metrics[name], value, rtol=1e-4, err_msg=name)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4), state.trained, whole.trained
    )


def test_examples_without_choices_are_refused_before_a_step(tiny, choice_update, initial, key):
    with pytest.raises(UserError, match="use TokenLoss"):
        jax.eval_shape(choice_update, initial(choice_update), tiny.frozen, tiny.batch, key)
