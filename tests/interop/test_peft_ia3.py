"""PEFT's (IA)^3 folders give vectors that rescale the same activations."""

import dataclasses
import json

import numpy as np
import pytest
from safetensors.numpy import save_file

from poly_jax.adapters.ia3 import IA3
from poly_jax.errors import UserError
from poly_jax.interop.adapters import read_adapters
from poly_jax.model.config import T5Config
from poly_jax.routing.fixed import SharedRouter
from poly_jax.weights.tree import flatten

SIZES = {"vocab_size": 9, "emb_dim": 4, "num_heads": 2, "head_dim": 3, "mlp_dim": 8}
GATED = T5Config(**SIZES, num_encoder_layers=1, num_decoder_layers=1)
RELU = T5Config(**SIZES, num_encoder_layers=1, num_decoder_layers=1, mlp_activations=("relu",))
KEY = "base_model.model.encoder.block.0.layer.0.SelfAttention.k.ia3_l"
WO = "base_model.model.encoder.block.0.layer.1.DenseReluDense.wo.ia3_l"
WI = "base_model.model.encoder.block.0.layer.1.DenseReluDense.{}.ia3_l"
RNG = np.random.default_rng(0)


def normal(*shape):
    return RNG.normal(size=shape).astype(np.float32)


@pytest.fixture
def folder(tmp_path):
    def write(tensors, **config):
        raw = {"peft_type": "IA3", "target_modules": ["k", "wo"], "feedforward_modules": ["wo"]}
        (tmp_path / "adapter_config.json").write_text(json.dumps(raw | config))
        save_file(tensors, tmp_path / "adapter_model.safetensors")
        return str(tmp_path)

    return write


def test_vectors_of_outputs_are_read(folder):
    vector = normal(6, 1)
    read = read_adapters(folder({KEY: vector}), GATED)
    assert (read.skill, read.router, read.sites) == (IA3(), SharedRouter(), ("encoder/attention/key",))
    ours = flatten(read.tree)["encoder/layers_0/attention/key/skills/ia3"]
    np.testing.assert_array_equal(ours, vector.reshape(1, 1, 6))


def test_a_vector_on_the_input_of_wo_becomes_one_on_the_linear_input_of_a_gated_mlp(folder):
    vector = normal(1, 8)
    leaves = flatten(read_adapters(folder({WO: vector}), GATED).tree)
    ours = leaves["encoder/layers_0/mlp/wi_1/skills/ia3"][0, 0]
    x, wi_0, wi_1, wo = normal(3, 4), normal(4, 8), normal(4, 8), normal(8, 4)
    gate = np.tanh(x @ wi_0)
    np.testing.assert_allclose((gate * (x @ wi_1 * ours)) @ wo, (gate * (x @ wi_1) * vector) @ wo, rtol=1e-5)


def test_vectors_of_the_linear_input_and_of_the_input_of_wo_are_multiplied(folder):
    before, after = normal(8, 1), normal(1, 8)
    targets = {"target_modules": ["wi_1", "wo"]}
    tensors = {WO: after, WI.format("wi_1"): before}
    leaves = flatten(read_adapters(folder(tensors, **targets), GATED).tree)
    assert list(leaves) == ["encoder/layers_0/mlp/wi_1/skills/ia3"]
    x, gate = normal(3, 8), normal(3, 8)
    theirs = gate * (x * before[:, 0]) * after[0]
    np.testing.assert_allclose(gate * (x * next(iter(leaves.values()))[0, 0]), theirs, rtol=1e-5)


def test_layers_that_are_not_adapted_have_vectors_of_ones(folder):
    model = dataclasses.replace(GATED, num_encoder_layers=2)
    place = folder({KEY: normal(6, 1)}, target_modules=r"encoder\.block\.0\..*\.k")
    leaves = flatten(read_adapters(place, model).tree)
    np.testing.assert_array_equal(leaves["encoder/layers_1/attention/key/skills/ia3"], np.ones((1, 1, 6)))


def test_with_relu_a_vector_on_the_input_of_wo_is_moved_through_if_it_is_positive(folder):
    vector = np.abs(normal(1, 8))
    ours = flatten(read_adapters(folder({WO: vector}), RELU).tree)["encoder/layers_0/mlp/wi/skills/ia3"][0, 0]
    x = normal(3, 8)
    np.testing.assert_allclose(np.maximum(x * ours, 0), np.maximum(x, 0) * vector, rtol=1e-6)
    with pytest.raises(UserError, match="has negative factors, which do not pass through the ReLU"):
        read_adapters(folder({WO: -vector}), RELU)


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({WI.format("wi_0"): normal(1, 4)}, "rescales the input of wi_0; only the input of wo can be"),
        ({WI.format("wi_1"): normal(8, 1)}, r"1 map that adapter_config\.json does not adapt .*mlp/wi_1"),
        ({KEY: normal(6, 1), KEY.replace("ia3_l", "ia3_l.b"): normal(6, 1)}, "twice, as .*ia3_l.b too"),
        ({"base_model.model.lm_head.ia3_l": normal(9, 1)}, r"1 tensor besides \(IA\)\^3's on a T5"),
        ({KEY: normal(6)}, r"1 tensor besides \(IA\)\^3's on a T5"),
    ],
)
def test_vectors_that_cannot_be_applied_are_reported_by_name(folder, tensors, message):
    with pytest.raises(UserError, match=message):
        read_adapters(folder(tensors), GATED)


def test_further_trained_modules_are_refused(folder):
    with pytest.raises(UserError, match=r"modules_to_save is \['lm_head'\], which is not supported"):
        read_adapters(folder({KEY: normal(6, 1)}, modules_to_save=["lm_head"]), GATED)
