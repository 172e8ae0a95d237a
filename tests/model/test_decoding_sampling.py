"""Greedy decoding and sampling against NumPy loops and Hugging Face's truncated distributions."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from poly_jax.errors import UserError
from poly_jax.model.decoding import sample
from poly_jax.model.decoding.sampling import nucleus

EOS = 1


def markov_step(table):
    """Make a model step whose logits depend on the row, the position and the last token."""

    def step(tokens, cache):
        row, position = cache
        return table[row, position, tokens], (row, position + 1)

    return step


@cache
def compiled_decode(max_length, **settings):
    @jax.jit
    def run(table, rng):
        past = (jnp.arange(len(table)), jnp.zeros((), jnp.int32))
        return sample(markov_step(table), past, len(table), max_length, rng=rng, **settings)

    return run


def decode(table, max_length, *, rng=None, **settings):
    return jax.tree.map(np.asarray, compiled_decode(max_length, **settings)(jnp.asarray(table), rng))


def markov_table(seed, batch, max_length, vocab, eos_bias=0.0) -> np.ndarray:
    table = np.random.default_rng(seed).normal(size=(batch, max_length, vocab, vocab)).astype(np.float32)
    table[..., EOS] += eos_bias
    return table


def score_of(row_table, tokens, eos_id=EOS):
    """Sum the log-probabilities up to and including EOS."""
    total, last = 0.0, 0
    for position, token in enumerate(tokens):
        logits = row_table[position, last].astype(np.float64)
        total += logits[token] - np.log(np.exp(logits).sum())
        last = token
        if token == eos_id:
            break
    return total


def test_greedy_takes_the_best_token_until_eos():
    table = markov_table(0, 6, 8, 5, eos_bias=0.5)
    tokens, scores = decode(table, 8)
    lengths = set()
    for row in range(6):
        expected, last = [], 0
        while len(expected) < 8 and last != EOS:
            last = int(table[row, len(expected), last].argmax())
            expected.append(last)
        lengths.add(len(expected))
        np.testing.assert_array_equal(tokens[row], expected + [0] * (8 - len(expected)))
        np.testing.assert_allclose(scores[row], score_of(table[row], expected), rtol=1e-5)
    assert len(lengths) > 1, "the rows should end at different positions"


def test_the_start_token_is_fed_first():
    table = markov_table(1, 3, 1, 6)
    tokens, _ = decode(table, 1, start_id=4)
    np.testing.assert_array_equal(tokens[:, 0], table[:, 0, 4].argmax(-1))


def test_an_eos_id_outside_the_vocabulary_never_ends_a_row():
    table = markov_table(2, 3, 6, 4, eos_bias=4.0)
    tokens, scores = decode(table, 6, eos_id=-1)
    np.testing.assert_array_equal(tokens, np.full((3, 6), EOS))
    np.testing.assert_allclose(scores, [score_of(t, [EOS] * 6, eos_id=-1) for t in table], rtol=1e-5)


@pytest.mark.parametrize(("eos_of_rows", "steps"), [([2, 2, 2], 3), ([0, 4, 1], 5), ([0, 9, 9], 7)])
def test_decoding_stops_when_every_row_has_ended(eos_of_rows, steps):
    calls = []

    @jax.jit
    def run(eos_of_rows):
        def step(tokens, position):
            jax.debug.callback(lambda: calls.append(1))
            ends = position >= eos_of_rows
            return jnp.where(
                ends[:, None], jnp.array([0.0, 5.0, 0.0]), jnp.array([0.0, 0.0, 5.0])
            ), position + 1

        return sample(step, jnp.zeros((), jnp.int32), 3, 7)

    tokens, _ = run(jnp.array(eos_of_rows))
    jax.effects_barrier()
    assert len(calls) == steps
    for row, end in enumerate(eos_of_rows):
        np.testing.assert_array_equal(tokens[row], ([2] * end + [1] + [0] * 7)[:7])


# Probabilities of LOGITS after the warpers of transformers 5.23.0 (torch 2.13.0, CPU), in this order:
# TemperatureLogitsWarper, TopKLogitsWarper (if k is not 0), TopPLogitsWarper (if p is not 1), softmax.
LOGITS = [0.2, 1.9, -0.7, 1.1, 0.5, 2.3, -1.5, 0.9]
WARPED = [
    (0.7, 4, 0.8, [0.0, 0.36091, 0.0, 0.0, 0.0, 0.63909, 0.0, 0.0]),
    (1.5, 0, 0.6, [0.0, 0.34575, 0.0, 0.20283, 0.0, 0.45141, 0.0, 0.0]),
    (1.3, 5, 1.0, [0.0, 0.26993, 0.0, 0.14588, 0.09195, 0.36717, 0.0, 0.12508]),
    (1.0, 6, 0.95, [0.0, 0.28124, 0.0, 0.12637, 0.06935, 0.41957, 0.0, 0.10346]),
    (0.5, 0, 1.0, [0.00911, 0.27296, 0.00151, 0.05511, 0.0166, 0.60748, 0.0003, 0.03694]),
    (2.0, 0, 0.05, [0.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0]),
]


@pytest.mark.parametrize(("temperature", "top_k", "top_p", "expected"), WARPED)
def test_tokens_are_drawn_from_the_truncated_distribution(temperature, top_k, top_p, expected):
    rows = 20_000

    @jax.jit
    def run(rng):
        def step(tokens, cache):
            return jnp.tile(jnp.array(LOGITS), (rows, 1)), cache

        return sample(step, (), rows, 1, rng=rng, temperature=temperature, top_k=top_k, top_p=top_p)

    tokens, scores = run(jax.random.key(0))
    frequencies = np.bincount(tokens[:, 0], minlength=len(LOGITS)) / rows
    expected = np.array(expected)
    assert (frequencies[expected == 0] == 0).all()
    # The tolerance is five standard deviations of a frequency.
    np.testing.assert_array_less(
        np.abs(frequencies - expected), 5 * np.sqrt(expected * (1 - expected) / rows) + 1e-4
    )
    model_log_probs = np.array(LOGITS) - np.log(np.exp(LOGITS).sum())
    np.testing.assert_allclose(scores, model_log_probs[tokens[:, 0]], rtol=1e-5)


@pytest.mark.parametrize("top_p", [0.01, 0.5, 0.9, 0.999])
def test_the_nucleus_equals_the_one_found_by_sorting(top_p):
    logits = 3 * np.random.default_rng(0).normal(size=(8, 500)).astype(np.float32)
    for row, kept in zip(logits, np.asarray(jax.vmap(lambda row: nucleus(row, top_p))(logits)), strict=True):
        order = np.argsort(-row)
        probs = np.exp(row[order].astype(np.float64))
        size = np.searchsorted(np.cumsum(probs / probs.sum()), top_p) + 1
        assert set(np.flatnonzero(kept > -np.inf)) == set(order[:size])
        np.testing.assert_array_equal(kept[order[:size]], row[order[:size]])


def test_tokens_as_probable_as_the_last_of_the_nucleus_are_kept():
    logits = jnp.log(jnp.array([0.1, 0.3, 0.3, 0.2, 0.1]))
    np.testing.assert_array_equal(nucleus(logits, 0.2) > -jnp.inf, [False, True, True, False, False])


@pytest.mark.parametrize("narrow", [{"top_k": 1}, {"top_p": 1e-6}, {"temperature": 1e-4}])
def test_the_narrowest_sampling_settings_equal_greedy_decoding(narrow):
    table = markov_table(3, 5, 6, 7)
    drawn = decode(table, 6, **{"rng": jax.random.key(1), "temperature": 1.0, **narrow})
    greedy = decode(table, 6)
    np.testing.assert_array_equal(drawn.tokens, greedy.tokens)
    np.testing.assert_allclose(drawn.scores, greedy.scores, rtol=1e-6)


def test_top_k_beyond_the_vocabulary_keeps_all_of_it():
    table = markov_table(4, 5, 6, 7)
    settings = {"rng": jax.random.key(1), "temperature": 1.0, "top_p": 0.9}
    np.testing.assert_array_equal(
        decode(table, 6, top_k=50, **settings).tokens, decode(table, 6, **settings).tokens
    )


def test_a_key_gives_the_same_draws_again_and_another_key_different_ones():
    table = markov_table(5, 4, 12, 50)
    first, again, other = (
        decode(table, 12, rng=jax.random.key(k), temperature=1.0).tokens for k in (3, 3, 4)
    )
    np.testing.assert_array_equal(first, again)
    assert (first != other).any(axis=1).all()


def test_draws_of_a_row_do_not_depend_on_the_other_rows():
    table = markov_table(6, 5, 10, 50)
    settings = {"rng": jax.random.key(3), "temperature": 1.0, "top_k": 20, "top_p": 0.9}
    np.testing.assert_array_equal(
        decode(table, 10, **settings).tokens[:2], decode(table[:2], 10, **settings).tokens
    )


def test_rows_and_positions_draw_independently():
    table = np.zeros((8, 16, 100, 100), np.float32)
    tokens = decode(table, 16, rng=jax.random.key(0), temperature=1.0, eos_id=-1).tokens
    assert len({tuple(row) for row in tokens}) == 8
    assert all(len(set(row)) > 8 for row in tokens)


def test_scores_of_drawn_tokens_are_the_models_own():
    table = markov_table(7, 6, 9, 8, eos_bias=1.0)
    tokens, scores = decode(table, 9, rng=jax.random.key(0), temperature=0.5, top_k=3, top_p=0.9)
    np.testing.assert_allclose(
        scores, [score_of(t, row) for t, row in zip(table, tokens, strict=True)], rtol=1e-5
    )


def test_scores_of_bfloat16_logits_are_summed_in_float32():
    table = jnp.asarray(markov_table(8, 4, 6, 30), jnp.bfloat16)
    tokens, scores = decode(table, 6)
    assert scores.dtype == np.float32
    rounded = np.asarray(table.astype(jnp.float32))
    np.testing.assert_allclose(
        scores, [score_of(t, row) for t, row in zip(rounded, tokens, strict=True)], rtol=1e-5
    )


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"temperature": -1.0}, "temperature=-1"),
        ({"temperature": 0.7}, "give rng"),
        ({"top_k": -2}, "top_k=-2"),
        ({"top_p": 0.0}, "top_p=0"),
        ({"top_p": 1.5}, "top_p=1.5"),
        ({"max_length": 0}, "max_length=0"),
    ],
)
def test_sampling_settings_out_of_range_are_reported_by_name(settings, named):
    arguments = {"max_length": 3, **settings}
    with pytest.raises(UserError, match=named):
        sample(markov_step(None), (), 1, **arguments)
