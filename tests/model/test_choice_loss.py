"""The three terms of T-Few's loss against its formulas in NumPy, choice by choice and token by token."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from poly_jax.errors import UserError
from poly_jax.model.choice_loss import ChoiceLoss

VOCAB = 7
# The number of tokens of each of three choices, for four rows. The last row is padding of the batch.
LENGTHS = np.array([[4, 1, 2], [2, 3, 0], [1, 4, 4], [0, 0, 0]])
LABELS = np.array([2, 0, 1, 0], np.int32)
TERMS = ("lm", "multiple_choice", "unlikelihood")


@pytest.fixture(scope="module")
def case():
    rng = np.random.default_rng(0)
    logits = rng.normal(scale=2, size=(4, 3, 4, VOCAB)).astype(np.float32)
    choices = rng.integers(1, VOCAB, (4, 3, 4)).astype(np.int32) * (np.arange(4) < LENGTHS[..., None])
    return logits, choices


def mean_of(loss, logits, choices):
    totals = loss.totals_of(jnp.asarray(logits), jnp.asarray(choices), LABELS)
    divisors = loss.divisors({"choices": jnp.asarray(choices), "labels": LABELS})
    return {name: float(total / divisors[name]) for name, total in totals.items()}


def by_hand(logits, choices, length_norm):
    """Compute the three means by the paper's formulas, in float64."""
    logits = np.asarray(logits, np.float64)
    log_probs = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    lm, multiple_choice, unlikelihood = [], [], []
    for row in range(3):
        scores = []
        for choice in range(3):
            length = LENGTHS[row, choice]
            if not length:
                continue
            picked = [log_probs[row, choice, place, choices[row, choice, place]] for place in range(length)]
            scores.append(sum(picked) / length**length_norm)
            if choice == LABELS[row]:
                right = len(scores) - 1
                lm += [-value for value in picked]
            else:
                unlikelihood += [-np.log(1 - np.exp(value) + 0.01) for value in picked]
        multiple_choice.append(np.log(np.sum(np.exp(scores))) - scores[right])
    return dict(zip(TERMS, map(np.mean, (lm, multiple_choice, unlikelihood)), strict=True))


@pytest.mark.parametrize("length_norm", [0.0, 1.0])
def test_the_terms_equal_their_formulas(case, length_norm):
    got = mean_of(ChoiceLoss(length_norm=length_norm), *case)
    expected = by_hand(*case, length_norm)
    assert list(got) == list(TERMS)
    for name in TERMS:
        np.testing.assert_allclose(got[name], expected[name], rtol=1e-5, err_msg=name)


def test_padding_choices_and_padding_rows_do_not_count(case):
    logits, choices = case
    whole = mean_of(ChoiceLoss(), logits, choices)
    garbled = np.where((LENGTHS == 0)[..., None, None], 50.0, logits).astype(np.float32)
    assert mean_of(ChoiceLoss(), garbled, choices) == whole
    # Add an absent fourth choice to all rows, as in a batch with tasks that have more choices.
    wider = [np.concatenate([array, 0 * array[:, :1]], axis=1) for array in case]
    for name, value in mean_of(ChoiceLoss(), *wider).items():
        np.testing.assert_allclose(value, whole[name], rtol=1e-6)


def test_a_weight_scales_its_term_and_0_turns_it_off(case):
    plain = mean_of(ChoiceLoss(), *case)
    weighted = mean_of(ChoiceLoss(lm=0.0, multiple_choice=0.5, unlikelihood=3.0), *case)
    assert list(weighted) == ["multiple_choice", "unlikelihood"]
    np.testing.assert_allclose(weighted["multiple_choice"], 0.5 * plain["multiple_choice"], rtol=1e-6)
    np.testing.assert_allclose(weighted["unlikelihood"], 3 * plain["unlikelihood"], rtol=1e-6)


@pytest.mark.parametrize("term", TERMS)
def test_the_gradient_of_a_term_reaches_only_the_tokens_in_it(case, term):
    logits, choices = case
    loss = ChoiceLoss(**{name: float(name == term) for name in TERMS})
    gradient = jax.jit(jax.grad(lambda x: sum(loss.totals_of(x, jnp.asarray(choices), LABELS).values())))(
        logits
    )
    touched = np.asarray(jnp.abs(gradient).sum(-1) > 0)
    is_right = (np.arange(3) == LABELS[:, None])[..., None]
    about = {"lm": is_right, "multiple_choice": True, "unlikelihood": ~is_right}[term]
    np.testing.assert_array_equal(touched, (choices > 0) & about)
    assert np.isfinite(gradient).all()


def test_a_model_that_is_sure_of_a_wrong_token_has_a_finite_unlikelihood(case):
    _, choices = case
    sure = 100 * jax.nn.one_hot(choices, VOCAB)
    np.testing.assert_allclose(mean_of(ChoiceLoss(), sure, choices)["unlikelihood"], -np.log(0.01), rtol=1e-4)


def test_an_example_without_choices_is_refused():
    with pytest.raises(UserError, match="ChoiceLoss needs examples with answer choices"):
        ChoiceLoss().divisors({})


@pytest.mark.parametrize("weights", [{"lm": -1.0}, dict.fromkeys(TERMS, 0.0)])
def test_impossible_weights_are_refused_by_name(weights):
    with pytest.raises(UserError, match=r"ChoiceLoss\.lm, \.multiple_choice and \.unlikelihood are"):
        ChoiceLoss(**weights)
