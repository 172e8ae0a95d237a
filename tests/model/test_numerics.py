"""Dropout, bfloat16, and the buckets of relative positions."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from poly_jax.errors import UserError
from poly_jax.model.attention import Attention
from poly_jax.model.context import Context
from poly_jax.model.relative_position import distance_buckets


def with_config(model, **fields):
    return dataclasses.replace(model, config=dataclasses.replace(model.config, **fields))


@pytest.fixture(scope="module")
def evaluated(tiny, logits_of):
    return np.asarray(logits_of(tiny.model, tiny.parameters, tiny.batch))


def test_bfloat16_activations_give_float32_logits_close_to_float32_activations(tiny, logits_of, evaluated):
    half = logits_of(with_config(tiny.model, dtype="bfloat16"), tiny.parameters, tiny.batch)
    assert half.dtype == jnp.float32
    error = np.sqrt(np.mean((half - evaluated) ** 2) / np.mean(evaluated**2))
    # bfloat16 has 8 bits of precision: an error of 0 would mean that float32 was used.
    assert 1e-4 < error < 0.06


class TestDropout:
    @pytest.fixture(scope="class")
    def trained(self, tiny, logits_of):
        model = with_config(dataclasses.replace(tiny.model, train=True), dropout_rate=0.3)
        no_sampling = dataclasses.replace(tiny.adapters.router, sampling=False)
        model = dataclasses.replace(model, adapters=dataclasses.replace(tiny.adapters, router=no_sampling))

        def run(dropout, routing=0):
            rngs = {"dropout": jax.random.key(dropout), "routing": jax.random.key(routing)}
            return np.asarray(logits_of(model, tiny.parameters, tiny.batch, **rngs))

        return run

    def test_it_is_off_in_evaluation(self, tiny, logits_of, evaluated):
        # No random key is given, so a model that draws random numbers would fail.
        logits = logits_of(with_config(tiny.model, dropout_rate=0.3), tiny.parameters, tiny.batch)
        np.testing.assert_array_equal(logits, evaluated)

    def test_it_is_on_in_training_and_depends_only_on_its_key(self, trained, evaluated):
        once = trained(1)
        np.testing.assert_array_equal(trained(1), once)
        np.testing.assert_array_equal(trained(1, routing=5), once)
        assert np.abs(trained(2) - once).max() > 0.1
        assert np.abs(once - evaluated).max() > 0.1


def test_the_draws_of_the_routers_depend_only_on_their_own_key(tiny, logits_of, evaluated):
    model = dataclasses.replace(tiny.model, train=True)
    once, again, other = (
        np.asarray(logits_of(model, tiny.parameters, tiny.batch, routing=jax.random.key(key)))
        for key in (1, 1, 2)
    )
    np.testing.assert_array_equal(once, again)
    assert np.abs(once - other).max() > 0.1
    assert np.abs(once - evaluated).max() > 0.1


@pytest.mark.parametrize("rate", [1.0, -0.5])
def test_a_dropout_rate_that_is_not_in_0_to_below_1_is_refused(tiny, rate):
    with pytest.raises(UserError, match=rf"T5Config\.dropout_rate is {rate}; it must be in \[0, 1\)"):
        with_config(tiny.model, dropout_rate=rate)


def test_attention_dropout_drops_a_key_for_all_queries_of_a_head(tiny):
    """It is T5X's `broadcast_dropout`: one mask over the keys for all queries of a row and head."""
    heads, length, rate = 2, 16, 0.4
    config = dataclasses.replace(tiny.config, num_heads=heads, head_dim=length, dropout_rate=rate)
    width = heads * length
    # Values are one-hot in the position, so the output of head h at query q is its row of attention weights.
    eye = np.tile(np.eye(length, dtype=np.float32), (1, heads))
    parameters = {
        "query": {"kernel": np.zeros_like(eye)},
        "key": {"kernel": np.zeros_like(eye)},
        "value": {"kernel": eye},
    }
    x = np.tile(np.eye(length, dtype=np.float32), (3, 1, 1))

    attention = Attention(Context(config, train=True), "encoder/attention")

    @jax.jit
    def run(key, out):
        variables = {"params": {**parameters, "out": {"kernel": out}}}
        return attention.apply(variables, x, None, None, None, rngs={"dropout": key})

    # The output projection selects one head at a time, with the same dropout masks each time.
    outs = np.eye(width, dtype=np.float32).reshape(heads, length, heads, length)
    outs = [outs[head].transpose(1, 0, 2).reshape(width, length) for head in range(heads)]
    weights = np.stack([np.asarray(run(jax.random.key(0), out)) for out in outs], axis=2)
    # Kept weights are divided by the probability of keeping them.
    kept = weights > 0
    np.testing.assert_allclose(weights[kept], 1 / length / (1 - rate), rtol=1e-5)
    np.testing.assert_array_equal(kept, np.broadcast_to(kept[:, :1], kept.shape))
    masks = kept[:, 0].reshape(-1, length)
    assert len(np.unique(masks, axis=0)) == len(masks), "each row and head should have its own mask"
    np.testing.assert_allclose(masks.mean(), 1 - rate, atol=0.15)


def test_buckets_hold_single_distances_and_then_grow_by_the_square_root_of_two():
    # 16 buckets up to 128: 8 exact ones; then edges at 8 * 16^(k/8) = 8, 11.3, 16, 22.6, 32, 45.3, 64, 90.5.
    edges = [*range(8), 8, 12, 16, 23, 32, 46, 64, 91]
    expected = np.searchsorted(edges, np.arange(129), side="right") - 1
    np.testing.assert_array_equal(distance_buckets(16, 128), expected)


def test_the_number_of_buckets_and_the_largest_distance_can_be_set():
    # 4 buckets up to 8: 2 exact ones; then edges at 2 * 4^(k/2) = 2, 4.
    np.testing.assert_array_equal(distance_buckets(4, 8), [0, 1, 2, 2, 3, 3, 3, 3, 3])
