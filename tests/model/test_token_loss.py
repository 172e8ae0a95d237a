"""Losses and scores of target tokens against NumPy in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from poly_jax.errors import UserError
from poly_jax.model.loss import TokenLoss
from poly_jax.model.scoring import sequence_scores, token_log_probs

BATCH, LENGTH, VOCAB = 3, 4, 6
LENGTHS = [4, 2, 0]


@pytest.fixture(scope="module")
def case():
    rng = np.random.default_rng(0)
    logits = rng.normal(scale=3, size=(BATCH, LENGTH, VOCAB)).astype(np.float32)
    targets = rng.integers(0, VOCAB, (BATCH, LENGTH)).astype(np.int32)
    weights = (np.arange(LENGTH) < np.array(LENGTHS)[:, None]).astype(np.float32)
    return logits, targets, weights


def log_softmax(logits):
    logits = logits.astype(np.float64)
    return logits - np.log(np.exp(logits).sum(-1, keepdims=True))


def tokens(weights):
    """Indices of the target tokens."""
    return [(row, place) for row, place in np.ndindex(*weights.shape) if weights[row, place]]


def loss_of(loss, case):
    logits, targets, weights = (jnp.asarray(array) for array in case)
    return float(jax.jit(loss.total)(logits, targets, weights)), float(jax.jit(loss.divisor)(weights))


def test_the_loss_is_the_mean_over_target_tokens(case):
    logits, targets, weights = case
    log_probs = log_softmax(logits)
    expected = np.mean([-log_probs[at][targets[at]] for at in tokens(weights)])
    total, divisor = loss_of(TokenLoss(), case)
    np.testing.assert_allclose(total / divisor, expected, rtol=1e-5)
    assert divisor == 6


def test_normalised_by_examples_longer_targets_count_more(case):
    logits, targets, weights = case
    log_probs = log_softmax(logits)
    # One of the three rows has no target: it is padding of the batch and not an example.
    expected = sum(-log_probs[at][targets[at]] for at in tokens(weights)) / 2
    total, divisor = loss_of(TokenLoss(normalize_by="examples"), case)
    np.testing.assert_allclose(total / divisor, expected, rtol=1e-5)


def test_label_smoothing_equals_fairseqs(case):
    logits, targets, weights = case
    log_probs, eps = log_softmax(logits), 0.1
    expected = sum(
        (1 - eps) * -log_probs[at][targets[at]] + eps / VOCAB * -log_probs[at].sum() for at in tokens(weights)
    )
    np.testing.assert_allclose(loss_of(TokenLoss(label_smoothing=eps), case)[0], expected, rtol=1e-5)


def test_z_loss_adds_the_squared_log_normaliser(case):
    logits, targets, weights = case
    log_z = np.log(np.exp(logits.astype(np.float64)).sum(-1))
    plain = sum(-log_softmax(logits)[at][targets[at]] for at in tokens(weights))
    expected = plain + 0.05 * sum(log_z[at] ** 2 for at in tokens(weights))
    np.testing.assert_allclose(loss_of(TokenLoss(z_loss=0.05), case)[0], expected, rtol=1e-5)


def test_bfloat16_logits_are_computed_with_in_float32(case):
    logits, targets, weights = case
    half = jnp.asarray(logits, jnp.bfloat16)
    total, _ = loss_of(TokenLoss(label_smoothing=0.1, z_loss=0.1), (half, targets, weights))
    rounded = np.asarray(half.astype(jnp.float32))
    expected, _ = loss_of(TokenLoss(label_smoothing=0.1, z_loss=0.1), (rounded, targets, weights))
    np.testing.assert_allclose(total, expected, rtol=1e-6)


@pytest.mark.parametrize("length_norm", [0.0, 0.6, 1.0])
def test_scores_are_sums_divided_by_a_power_of_the_length(case, length_norm):
    logits, targets, weights = case
    log_probs = log_softmax(logits)
    expected = [
        sum(log_probs[row, i, targets[row, i]] for i in range(n)) / max(n, 1) ** length_norm
        for row, n in enumerate(LENGTHS)
    ]
    got = sequence_scores(jnp.asarray(logits), jnp.asarray(targets), jnp.asarray(weights), length_norm)
    np.testing.assert_allclose(got, expected, rtol=1e-5)


def test_token_log_probs_are_those_of_the_targets(case):
    logits, targets, _ = case
    expected = np.take_along_axis(log_softmax(logits), targets[..., None], -1)[..., 0]
    np.testing.assert_allclose(
        token_log_probs(jnp.asarray(logits), jnp.asarray(targets)), expected, rtol=1e-5
    )


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"label_smoothing": 1.0}, "label_smoothing is 1.0"),
        ({"label_smoothing": -0.1}, "label_smoothing is -0.1"),
        ({"normalize_by": "batch"}, "normalize_by is 'batch'; use one of tokens, examples"),
    ],
)
def test_settings_out_of_range_are_reported_by_name(settings, named):
    with pytest.raises(UserError, match=named):
        TokenLoss(**settings)


def test_the_gradient_is_computed_in_place_of_the_logits(case):
    """A scattered gradient would be an array of zeros beside them."""
    logits, targets, weights = case
    gradient = jax.make_jaxpr(jax.grad(lambda logits: TokenLoss().total(logits, targets, weights)))
    assert "scatter" not in str(gradient(logits))


def test_the_gradient_takes_the_memory_of_the_logits():
    rows, length, width, vocabulary = 4, 16, 8, 4096

    def loss(x, kernel, targets):
        logits = jnp.einsum("bld,dv->blv", x, kernel)
        return TokenLoss().total(logits, targets, jnp.ones(targets.shape))

    x = jax.ShapeDtypeStruct((rows, length, width), jnp.float32)
    kernel = jax.ShapeDtypeStruct((width, vocabulary), jnp.float32)
    targets = jax.ShapeDtypeStruct((rows, length), jnp.int32)
    program = jax.jit(jax.grad(loss)).lower(x, kernel, targets).compile()
    logits = 4 * rows * length * vocabulary
    assert logits <= program.memory_analysis().temp_size_in_bytes < 1.5 * logits
