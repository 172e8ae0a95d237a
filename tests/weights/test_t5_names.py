"""Hugging Face's and T5X's module names correspond one to one."""

import pytest

from poly_jax.weights import t5_names as names

PAIRS = {
    "shared": "token_embedder",
    "lm_head": "decoder/logits_dense",
    "encoder.final_layer_norm": "encoder/encoder_norm",
    "decoder.final_layer_norm": "decoder/decoder_norm",
    "encoder.block.0.layer.0.SelfAttention.relative_attention_bias": "encoder/relpos_bias",
    "decoder.block.0.layer.0.SelfAttention.relative_attention_bias": "decoder/relpos_bias",
    "encoder.block.11.layer.0.SelfAttention.q": "encoder/layers_11/attention/query",
    "encoder.block.0.layer.0.SelfAttention.k": "encoder/layers_0/attention/key",
    "encoder.block.0.layer.0.layer_norm": "encoder/layers_0/pre_attention_layer_norm",
    "encoder.block.0.layer.1.DenseReluDense.wi": "encoder/layers_0/mlp/wi",
    "encoder.block.0.layer.1.layer_norm": "encoder/layers_0/pre_mlp_layer_norm",
    "decoder.block.3.layer.0.SelfAttention.v": "decoder/layers_3/self_attention/value",
    "decoder.block.3.layer.0.layer_norm": "decoder/layers_3/pre_self_attention_layer_norm",
    "decoder.block.3.layer.1.EncDecAttention.o": "decoder/layers_3/encoder_decoder_attention/out",
    "decoder.block.3.layer.1.layer_norm": "decoder/layers_3/pre_cross_attention_layer_norm",
    "decoder.block.3.layer.2.DenseReluDense.wi_1": "decoder/layers_3/mlp/wi_1",
    "decoder.block.3.layer.2.DenseReluDense.wo": "decoder/layers_3/mlp/wo",
    "decoder.block.3.layer.2.layer_norm": "decoder/layers_3/pre_mlp_layer_norm",
}


@pytest.mark.parametrize(("module", "path"), PAIRS.items())
def test_known_names_are_translated_in_both_directions(module, path):
    assert names.to_t5x(module) == path
    assert names.to_hugging_face(path) == module


def test_all_modules_of_a_model_are_translated_there_and_back():
    paths = names.paths(3, 2, ("wi_0", "wi_1"))
    modules = [names.to_hugging_face(path) for path in paths]
    assert len(set(modules)) == len(paths)
    assert [names.to_t5x(module) for module in modules] == paths


def test_relative_position_biases_belong_to_a_stack_or_to_its_layers():
    assert [path for path in names.paths(2, 1, ("wi",)) if "relpos" in path] == [
        "encoder/relpos_bias",
        "decoder/relpos_bias",
    ]
    own = [path for path in names.paths(2, 1, ("wi",), bias_in_layers=True) if "relpos" in path]
    assert own == [
        "encoder/layers_0/relpos_bias",
        "encoder/layers_1/relpos_bias",
        "decoder/layers_0/relpos_bias",
    ]
    assert [names.to_hugging_face(path) for path in own] == [
        "encoder.block.0.layer.0.SelfAttention.relative_attention_bias",
        "encoder.block.1.layer.0.SelfAttention.relative_attention_bias",
        "decoder.block.0.layer.0.SelfAttention.relative_attention_bias",
    ]


@pytest.mark.parametrize(
    "module",
    [
        "encoder.block.0.layer.1.EncDecAttention.q",
        "encoder.block.1.layer.1.EncDecAttention.relative_attention_bias",
        "encoder.block.0.layer.0.SelfAttention",
        "classification_head.dense",
        "",
    ],
)
def test_modules_that_t5_does_not_have_have_no_translation(module):
    assert names.to_t5x(module) is None


def test_paths_that_t5_does_not_have_have_no_translation():
    assert names.to_hugging_face("encoder/layers_0/self_attention/query") is None
    assert names.to_hugging_face("router") is None


def test_a_site_is_a_path_without_the_layer():
    assert names.site("decoder/layers_12/mlp/wi_0") == "decoder/mlp/wi_0"
