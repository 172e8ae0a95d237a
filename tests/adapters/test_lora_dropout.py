"""Dropout on the LoRA path: `y = x W0 + (alpha / r) (drop(x) A) B`, in training only."""

import dataclasses

import jax
import numpy as np
import pytest
from flax import traverse_util

from poly_jax.adapters.config import Adapters
from poly_jax.adapters.lora import LoRA
from poly_jax.errors import UserError
from poly_jax.model.config import T5Config
from poly_jax.model.parameters import parameter_shapes
from poly_jax.model.transformer import Transformer
from poly_jax.routing.learned import LearnedRouter

RATE = 0.25


@pytest.fixture
def case():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, 5, 8)).astype(np.float32)
    kernel = rng.normal(size=(8, 6)).astype(np.float32)
    mixed = {
        "lora_a": rng.normal(size=(2, 8, 3)).astype(np.float32),
        "lora_b": rng.normal(size=(2, 3, 6)).astype(np.float32),
    }
    return x, kernel, mixed, rng.uniform(size=x.shape).astype(np.float32)


def test_dropout_acts_on_the_inputs_of_the_update_and_not_of_the_frozen_map(case):
    x, kernel, mixed, u = case
    skill = LoRA(rank=3, alpha=2.0, dropout=RATE)
    asked = []

    def uniform(shape):
        asked.append(shape)
        return u

    got = skill.apply(mixed, x, x @ kernel, uniform)
    assert asked == [x.shape]
    dropped = np.where(u < RATE, 0, x / (1 - RATE))
    assert 0 < (u < RATE).sum() < u.size
    low = np.einsum("bli,bir->blr", dropped, mixed["lora_a"])
    expected = x @ kernel + (2 / 3) * np.einsum("blr,bro->blo", low, mixed["lora_b"])
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-5)


def test_evaluation_and_a_rate_of_zero_draw_no_mask(case):
    x, kernel, mixed, _ = case

    def never(shape):
        raise AssertionError

    whole = LoRA(rank=3).apply(mixed, x, x @ kernel, never)
    np.testing.assert_array_equal(LoRA(rank=3, dropout=RATE).apply(mixed, x, x @ kernel), whole)


def test_bfloat16_stays_bfloat16(case):
    x, kernel, mixed, u = case
    x = jax.numpy.asarray(x, jax.numpy.bfloat16)
    skill = LoRA(rank=3, dropout=RATE)
    assert skill.apply(mixed, x, x @ kernel.astype(x.dtype), lambda shape: u).dtype == x.dtype


@pytest.mark.parametrize("rate", [-0.1, 1.0])
def test_a_rate_out_of_range_is_reported_by_name(rate):
    with pytest.raises(UserError, match=rf"LoRA.dropout is {rate}; it must be in \[0, 1\)"):
        LoRA(dropout=rate)


@pytest.mark.parametrize("scan_layers", [False, True])
def test_dropout_uses_the_models_dropout_stream_and_only_in_training(scan_layers):
    config = T5Config(
        vocab_size=16,
        emb_dim=8,
        num_heads=1,
        head_dim=8,
        mlp_dim=8,
        num_encoder_layers=2,
        num_decoder_layers=1,
        mlp_activations=("relu",),
        dropout_rate=0.0,
        scan_layers=scan_layers,
    )
    adapters = Adapters(
        LoRA(dropout=0.5), LearnedRouter(sampling=False), n_tasks=2, n_skills=2, sites=".*/mlp/wi"
    )
    model = Transformer(config, adapters)
    rng = np.random.default_rng(0)
    leaves = traverse_util.flatten_dict(parameter_shapes(model)[0])
    parameters = traverse_util.unflatten_dict(
        {path: rng.normal(size=leaf.shape).astype(np.float32) for path, leaf in leaves.items()}
    )
    tokens, ids = np.full((2, 3), 5, np.int32), np.array([0, 1], np.int32)

    @jax.jit
    def trained(key):
        return dataclasses.replace(model, train=True).apply(
            {"params": parameters}, tokens, tokens, ids, rngs={"dropout": key}
        )

    evaluated = jax.jit(model.apply)({"params": parameters}, tokens, tokens, ids)
    first, again, other = (trained(jax.random.key(seed)) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - other).max() > 1e-3
    assert np.abs(first - evaluated).max() > 1e-3
