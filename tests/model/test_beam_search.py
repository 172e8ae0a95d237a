"""Beam search against Hugging Face's results, a plain search with lists, and all possible outputs."""

import dataclasses
import itertools
from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from poly_jax.errors import UserError
from poly_jax.model.decoding import Decoded, beam_search, sample

STATES = 97
EOS = 1


def next_state(state, token):
    """Hash the whole history into a number, so that a beam with another beam's cache gets other logits."""
    return (state * 31 + token * 7 + 1) % STATES


def logit_table(seed, batch, vocab, scale, eos_bias) -> np.ndarray:
    """Logits [batch, STATES, vocab], uniform in +-scale, from an integer hash: the same on every machine."""
    row, state, token = np.meshgrid(range(batch), range(STATES), range(vocab), indexing="ij")
    mixed = (((seed * 1000 + row) * STATES + state) * vocab + token).astype(np.uint64)
    mixed = mixed * np.uint64(2654435761) % np.uint64(2**32)
    mixed = (mixed ^ (mixed >> np.uint64(15))) * np.uint64(2246822519) % np.uint64(2**32)
    logits = (mixed / 2.0**32 * 2 - 1) * scale
    logits[..., EOS] += eos_bias
    return logits.astype(np.float32)


def table_step(table, tokens, cache):
    state = next_state(cache["state"], tokens)
    return table[cache["row"], state], {"state": state, "row": cache["row"]}


def table_cache(batch, n_beams):
    return {"state": jnp.zeros(batch * n_beams, jnp.int32), "row": jnp.repeat(jnp.arange(batch), n_beams)}


def take_rows(cache, rows):
    return jax.tree.map(lambda leaf: leaf[rows], cache)


@cache
def compiled_search(n_beams, max_length, **settings):
    @jax.jit
    def run(table):
        step, past = partial(table_step, table), table_cache(len(table), n_beams)
        return beam_search(step, past, len(table), n_beams, max_length, reorder=take_rows, **settings)

    return run


def search(table, n_beams, max_length, **settings) -> Decoded:
    return jax.tree.map(np.asarray, compiled_search(n_beams, max_length, **settings)(jnp.asarray(table)))


def log_softmax(logits):
    logits = logits.astype(np.float64)
    return logits - np.log(np.exp(logits).sum(-1, keepdims=True))


def state_after(tokens):
    state = next_state(0, 0)
    for token in tokens:
        state = next_state(state, token)
    return state


def padded(tokens, max_length):
    return list(tokens) + [0] * (max_length - len(tokens))


@dataclasses.dataclass(frozen=True)
class HuggingFaceCase:
    """Outputs of transformers 5.23.0 (torch 2.13.0, CPU) for `logit_table(seed, 2, 6, scale, eos_bias)`.

    Made by `generate(torch.zeros(2, 1, dtype=int), num_beams=3, num_return_sequences=3, max_new_tokens=7,
    early_stopping=False, eos_token_id=1 or None, pad_token_id=0, length_penalty=...)` with a model that
    returns `table_step`'s logits. The start token and the padding (there, the EOS id) are cut off.
    The seeds are chosen so that each of these would change a result, where the length penalty allows it:
    counting the start token in the length, not counting EOS, letting all 2 * beams candidates finish,
    early_stopping=True or "never", and not stopping at all.
    """

    seed: int
    scale: float
    eos_bias: float
    length_penalty: float
    eos_id: int
    tokens: list[list[str]]
    scores: list[list[float]]


HUGGING_FACE_CASES = [
    HuggingFaceCase(
        seed=1485,
        scale=2.0,
        eos_bias=1.0,
        length_penalty=0.6,
        eos_id=1,
        tokens=[["1", "4221", "451"], ["1", "421", "42321"]],
        scores=[[-0.54767, -1.73424, -1.84271], [-0.88205, -2.03133, -2.08651]],
    ),
    HuggingFaceCase(
        seed=1846,
        scale=3.0,
        eos_bias=2.0,
        length_penalty=1.0,
        eos_id=1,
        tokens=[["221", "21", "521"], ["235451", "23541", "221"]],
        scores=[[-0.73438, -0.78763, -0.83372], [-0.71385, -0.75499, -0.76433]],
    ),
    HuggingFaceCase(
        seed=2997,
        scale=2.0,
        eos_bias=2.0,
        length_penalty=2.0,
        eos_id=1,
        tokens=[["44401", "55351", "44051"], ["251", "531", "551"]],
        scores=[[-0.24014, -0.2699, -0.27621], [-0.30233, -0.31929, -0.34488]],
    ),
    HuggingFaceCase(
        seed=2893,
        scale=3.0,
        eos_bias=1.0,
        length_penalty=0.0,
        eos_id=1,
        tokens=[["31", "3521", "3201"], ["441", "4241", "4240331"]],
        scores=[[-0.96185, -3.14539, -3.2362], [-2.67236, -2.81584, -2.85238]],
    ),
    HuggingFaceCase(
        seed=2719,
        scale=3.0,
        eos_bias=1.0,
        length_penalty=-0.5,
        eos_id=1,
        tokens=[["31", "351", "1"], ["1", "531", "34201"]],
        scores=[[-1.29856, -3.40285, -3.66193], [-0.79575, -5.15229, -7.74538]],
    ),
    HuggingFaceCase(
        seed=7,
        scale=3.0,
        eos_bias=0.0,
        length_penalty=1.0,
        eos_id=-1,
        tokens=[["122215", "1222134", "0215045"], ["153552", "1535525", "1422022"]],
        scores=[[-0.64875, -0.66334, -0.67781], [-0.55938, -0.62155, -0.62745]],
    ),
]


@pytest.mark.parametrize(
    "case", HUGGING_FACE_CASES, ids=lambda case: f"penalty_{case.length_penalty}_eos_{case.eos_id}"
)
def test_beams_equal_those_of_hugging_face(case):
    table = logit_table(case.seed, 2, 6, case.scale, case.eos_bias)
    tokens, scores = search(table, 3, 7, length_penalty=case.length_penalty, eos_id=case.eos_id)
    expected = [[padded([int(digit) for digit in output], 7) for output in row] for row in case.tokens]
    np.testing.assert_array_equal(tokens, expected)
    np.testing.assert_allclose(scores, case.scores, atol=2e-5)


def plain_search(row_table, n_beams, max_length, length_penalty):
    """Search one row with sorted lists; return (score, tokens) pairs, best first."""
    log_probs = log_softmax(row_table)
    running, finished = [(0.0, ())], []
    for length in range(1, max_length + 1):
        candidates = [
            (score + log_prob, (*tokens, token))
            for score, tokens in running
            for token, log_prob in enumerate(log_probs[state_after(tokens)])
        ]
        candidates = sorted(candidates, reverse=True)[: 2 * n_beams]
        ends = [length == max_length or tokens[-1] == EOS for _, tokens in candidates]
        for (score, tokens), end in list(zip(candidates, ends, strict=True))[:n_beams]:
            if end:
                finished.append((score / length**length_penalty, tokens))
        finished = sorted(finished, reverse=True)[:n_beams]
        running = [candidate for candidate, end in zip(candidates, ends, strict=True) if not end][:n_beams]
        if not running:
            break
        if len(finished) == n_beams and running[0][0] / length**length_penalty <= finished[-1][0]:
            break
    return finished


@pytest.mark.parametrize(
    ("length_penalty", "vocab", "n_beams", "max_length", "eos_bias"),
    [
        (0.0, 7, 2, 9, 1.5),
        (0.6, 40, 5, 4, 3.0),
        (1.0, 3, 4, 6, 0.0),
        (1.0, 40, 5, 9, 3.0),
        (2.0, 7, 2, 9, 1.5),
    ],
)
def test_beams_equal_those_of_a_plain_search(length_penalty, vocab, n_beams, max_length, eos_bias):
    table = logit_table(vocab, 4, vocab, 2.0, eos_bias)
    tokens, scores = search(table, n_beams, max_length, length_penalty=length_penalty)
    for row in range(4):
        expected = plain_search(table[row], n_beams, max_length, length_penalty)
        assert len(expected) == n_beams
        np.testing.assert_array_equal(tokens[row], [padded(found, max_length) for _, found in expected])
        np.testing.assert_allclose(scores[row], [score for score, _ in expected], rtol=1e-5)


@pytest.mark.parametrize("length_penalty", [0.0, 1.0])
def test_with_as_many_beams_as_prefixes_the_best_of_all_outputs_is_found(length_penalty):
    vocab, max_length, n_beams = 3, 4, 24
    table = logit_table(5, 2, vocab, 2.0, 0.0)
    tokens, scores = search(table, n_beams, max_length, length_penalty=length_penalty)
    for row in range(2):
        log_probs = log_softmax(table[row])
        outputs = {}
        for ids in itertools.product(range(vocab), repeat=max_length):
            output = ids[: ids.index(EOS) + 1] if EOS in ids else ids
            total = sum(log_probs[state_after(output[:i]), token] for i, token in enumerate(output))
            outputs[output] = total / len(output) ** length_penalty
        expected = sorted(outputs, key=outputs.__getitem__, reverse=True)[:n_beams]
        np.testing.assert_array_equal(tokens[row], [padded(output, max_length) for output in expected])
        np.testing.assert_allclose(scores[row], [outputs[output] for output in expected], rtol=1e-5)


def test_one_beam_without_length_penalty_equals_greedy_decoding():
    table = logit_table(11, 4, 9, 2.0, 1.0)
    tokens, scores = search(table, 1, 8, length_penalty=0.0)
    greedy = sample(partial(table_step, jnp.asarray(table)), table_cache(4, 1), 4, 8)
    np.testing.assert_array_equal(tokens[:, 0], greedy.tokens)
    np.testing.assert_allclose(scores[:, 0], greedy.scores, rtol=1e-6)


def test_a_row_has_the_same_result_alone_and_in_a_batch():
    table = logit_table(13, 3, 8, 2.0, 1.0)
    together = search(table, 3, 10)
    for row in range(3):
        alone = search(table[row : row + 1], 3, 10)
        np.testing.assert_array_equal(together.tokens[row], alone.tokens[0])
        np.testing.assert_array_equal(together.scores[row], alone.scores[0])


def test_search_stops_once_no_running_beam_can_win():
    calls = []

    @jax.jit
    def run():
        def step(tokens, cache):
            jax.debug.callback(lambda: calls.append(1))
            return jnp.tile(jnp.log(jnp.array([0.01, 0.97, 0.02])), (2, 1)), cache

        return beam_search(step, (), 1, 2, 50, length_penalty=0.0, reorder=lambda cache, _: cache)

    result = run()
    jax.effects_barrier()
    # "1" ends first; then "2 1" fills the second slot, and no longer output can be as probable.
    np.testing.assert_array_equal(result.tokens[0, :, :3], [[1, 0, 0], [2, 1, 0]])
    assert len(calls) == 2


def test_reordering_stays_among_the_beams_of_a_row():
    seen = []

    def reorder(cache, rows):
        jax.debug.callback(lambda rows: seen.append(np.asarray(rows)), rows)
        return take_rows(cache, rows)

    @jax.jit
    def run(table):
        return beam_search(partial(table_step, table), table_cache(3, 4), 3, 4, 6, reorder=reorder)

    run(jnp.asarray(logit_table(17, 3, 8, 2.0, 0.0)))
    jax.effects_barrier()
    assert seen
    assert all((rows // 4 == np.repeat(np.arange(3), 4)).all() for rows in seen)
    assert any((rows != np.arange(12)).any() for rows in seen)


def test_slots_beyond_the_number_of_possible_outputs_are_padding_with_the_lowest_score():
    tokens, scores = search(logit_table(19, 2, 2, 1.0, 0.0), 4, 1)
    np.testing.assert_array_equal(np.sort(tokens[:, :2, 0]), [[0, 1], [0, 1]])
    assert np.isfinite(scores[:, :2]).all()
    assert (tokens[:, 2:] == 0).all()
    assert (scores[:, 2:] == -np.inf).all()


def test_bfloat16_logits_are_scored_in_float32():
    table = jnp.asarray(logit_table(23, 2, 40, 3.0, 0.0), jnp.bfloat16)
    half, full = search(table, 3, 5), search(table.astype(jnp.float32), 3, 5)
    assert half.scores.dtype == np.float32
    np.testing.assert_array_equal(half.tokens, full.tokens)
    np.testing.assert_array_equal(half.scores, full.scores)


@pytest.mark.parametrize(
    ("setting", "named"),
    [
        ({"n_beams": 0}, "n_beams=0"),
        ({"max_length": 0}, "max_length=0"),
        ({"length_penalty": float("nan")}, "length_penalty=nan"),
    ],
)
def test_settings_out_of_range_are_reported_by_name(setting, named):
    arguments = {"n_beams": 2, "max_length": 3, **setting}
    with pytest.raises(UserError, match=named):
        beam_search(table_step, (), 1, reorder=take_rows, **arguments)
