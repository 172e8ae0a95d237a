"""Separate relative position biases per layer, as in umT5, act like one shared bias where all are equal."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from poly_jax.model.config import T5Config
from poly_jax.model.generate import Decoding, generate
from poly_jax.model.parameters import init_parameters
from poly_jax.model.transformer import Transformer
from poly_jax.weights.layer_trees import stack_layers

SHARED = T5Config(
    vocab_size=20, emb_dim=8, num_heads=2, head_dim=4, mlp_dim=8, num_encoder_layers=2, num_decoder_layers=2
)
TOKENS = jnp.asarray([[3, 7, 9, 2, 1], [5, 1, 0, 0, 0]])
TASKS = jnp.zeros((2,), jnp.int32)


@pytest.fixture(scope="module")
def shared(quick_jit):
    return quick_jit(lambda key: init_parameters(Transformer(SHARED), key)[0])(jax.random.key(0))


@pytest.fixture(scope="module")
def logits(quick_jit):
    return quick_jit(_logits, static_argnums=0)


def repeated(tree, scale=(1.0, 1.0)):
    """Copy each stack's bias into its layers, scaled by one number for each layer."""
    moved = {name: dict(child) for name, child in tree.items()}
    for stack in ("encoder", "decoder"):
        bias = moved[stack].pop("relpos_bias")["rel_embedding"]
        for layer, factor in enumerate(scale):
            own = {"relpos_bias": {"rel_embedding": bias * factor}}
            moved[stack][f"layers_{layer}"] = moved[stack][f"layers_{layer}"] | own
    return moved


def _logits(config, tree):
    return Transformer(config).apply({"params": tree}, TOKENS, TOKENS, TASKS)


@pytest.mark.parametrize("scan_layers", [False, True])
def test_equal_biases_in_all_layers_equal_one_bias_of_the_stack(shared, logits, quick_jit, scan_layers):
    config = dataclasses.replace(SHARED, relative_bias_in_layers=True, scan_layers=scan_layers)
    own = repeated(shared)
    own = stack_layers(own) if scan_layers else own
    np.testing.assert_allclose(logits(config, own), logits(SHARED, shared), atol=1e-5)
    decode, decoding = quick_jit(generate, static_argnums=(0, 4)), Decoding(max_length=6)
    got = decode(Transformer(config), own, TOKENS, TASKS, decoding)
    expected = decode(Transformer(SHARED), shared, TOKENS, TASKS, decoding)
    np.testing.assert_array_equal(got.tokens, expected.tokens)
    np.testing.assert_allclose(got.scores, expected.scores, atol=1e-5)


def test_the_biases_of_every_layer_affect_the_logits(shared, logits):
    config = dataclasses.replace(SHARED, relative_bias_in_layers=True)
    first, second = (logits(config, repeated(shared, scale)) for scale in ((9.0, 1.0), (1.0, 9.0)))
    plain = logits(SHARED, shared)
    assert abs(first - plain).max() > 1e-3
    assert abs(second - plain).max() > 1e-3
    assert abs(first - second).max() > 1e-3
