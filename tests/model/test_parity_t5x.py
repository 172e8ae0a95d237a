"""The model without adapters computes the same as t5x's own network from the same checkpoints."""

import ast
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from poly_jax.model.config import T5Config
from poly_jax.model.generate import Decoding, generate
from poly_jax.model.scoring import sequence_scores
from poly_jax.model.transformer import Transformer
from poly_jax.weights.backbone import read_backbone
from poly_jax.weights.layer_trees import stack_layers


@pytest.fixture(scope="module", params=["v1_0", "v1_1"])
def case(request, shared_data):
    folder = shared_data / "t5x" / f"t5x_tiny_{request.param}"
    expected = np.load(folder / "expected.npz", allow_pickle=False)
    config = T5Config(**ast.literal_eval(str(expected["config"])))
    return config, read_backbone(folder / "checkpoint_1100000"), expected


@pytest.fixture(params=[False, True], ids=["apart", "scanned"])
def built(request, case):
    config, parameters, expected = case
    if request.param:
        parameters = stack_layers(parameters)
    config = T5Config(**{**vars(config), "scan_layers": request.param})
    return Transformer(config), parameters, expected


def test_logits_equal_t5x(built):
    model, parameters, expected = built
    logits = jax.jit(model.apply)(
        {"params": parameters},
        expected["encoder_input_tokens"],
        expected["decoder_input_tokens"],
        decoder_target_tokens=expected["decoder_target_tokens"],
    )
    np.testing.assert_allclose(logits, expected["logits"], atol=1e-4)
    weights = (expected["decoder_target_tokens"] > 0).astype(np.float32)
    scores = sequence_scores(logits, jnp.asarray(expected["decoder_target_tokens"]), weights)
    np.testing.assert_allclose(scores, expected["score_batch"], atol=1e-4)


def test_greedy_decodes_equal_t5x(built):
    model, parameters, expected = built
    decode = jax.jit(functools.partial(generate, model, task_ids=None, decoding=Decoding(max_length=12)))
    decoded = decode(parameters, encoder_input_tokens=expected["encoder_input_tokens"])
    np.testing.assert_array_equal(decoded.tokens, expected["greedy"])
    np.testing.assert_allclose(decoded.scores, expected["greedy_scores"], atol=1e-4)
