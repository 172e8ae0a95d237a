"""Names and shapes determine which T5 a checkpoint holds, or why it is not a T5."""

import ast
import dataclasses

import numpy as np
import pytest

from poly_jax.errors import UserError
from poly_jax.model.config import T5Config
from poly_jax.model.parameters import parameter_shapes
from poly_jax.model.transformer import Transformer
from poly_jax.weights.backbone import open_backbone
from poly_jax.weights.t5_shapes import t5_fields, t5_parameter_shapes
from poly_jax.weights.tensors import of_tree
from poly_jax.weights.tree import flatten

TINY = T5Config(
    vocab_size=11,
    emb_dim=6,
    num_heads=2,
    head_dim=5,
    mlp_dim=7,
    num_encoder_layers=3,
    num_decoder_layers=1,
    relative_attention_num_buckets=8,
)
V1_0 = T5Config(
    vocab_size=11,
    emb_dim=6,
    num_heads=2,
    head_dim=5,
    mlp_dim=7,
    num_encoder_layers=1,
    num_decoder_layers=2,
    mlp_activations=("relu",),
    logits_via_embedding=True,
)


def config_of(path) -> T5Config:
    return T5Config.of_checkpoint(open_backbone(path).stated_fields(), path)


OWN_BIASES = dataclasses.replace(TINY, relative_bias_in_layers=True)


def tensors(config, without=(), **more):
    shapes = {
        name: shape for name, shape in t5_parameter_shapes(config).items() if name not in without
    } | more
    return of_tree({name: np.zeros(shape, np.float32) for name, shape in shapes.items()})


@pytest.mark.parametrize("config", [TINY, V1_0, OWN_BIASES], ids=["v1.1", "v1.0", "umT5"])
def test_the_shapes_are_those_of_the_network(config):
    network = flatten(parameter_shapes(Transformer(config))[0])
    assert t5_parameter_shapes(config) == {name: leaf.shape for name, leaf in network.items()}


@pytest.mark.parametrize("config", [TINY, V1_0, OWN_BIASES], ids=["v1.1", "v1.0", "umT5"])
def test_the_configuration_is_determined_by_the_shapes(config):
    assert T5Config(**t5_fields(tensors(config), "x")) == config


@pytest.mark.parametrize("version", ["t5x_tiny_v1_0", "t5x_tiny_v1_1"])
def test_the_configuration_is_read_from_a_t5x_checkpoint(shared_data, version):
    folder = shared_data / "t5x" / version
    config = config_of(folder / "checkpoint_1100000")
    for field, value in ast.literal_eval(str(np.load(folder / "expected.npz")["config"])).items():
        if hasattr(config, field) and field not in ("dtype", "dropout_rate"):
            found = getattr(config, field)
            assert (list(found) if isinstance(found, tuple) else found) == (
                list(value) if isinstance(value, tuple | list) else value
            ), field


def test_a_model_without_an_encoder_is_refused():
    decoder = {name: t for name, t in tensors(TINY).items() if not name.startswith("encoder")}
    with pytest.raises(UserError, match="x has no encoder; decoder-only models are not supported"):
        t5_fields(decoder, "x")


def test_parameters_that_determine_the_size_must_be_present():
    name = "encoder/relpos_bias/rel_embedding"
    with pytest.raises(UserError, match=f"x lacks {name}, which states the size of a T5"):
        t5_fields(tensors(TINY, without=[name]), "x")
    with pytest.raises(UserError, match=r"x has \[2\] for encoder/relpos_bias/rel_embedding"):
        t5_fields(tensors(TINY, **{name: (2,)}), "x")


def test_an_mlp_with_other_inputs_is_reported_by_name():
    more = {"encoder/layers_0/mlp/wi/kernel": (6, 7)}
    with pytest.raises(UserError, match="has an MLP with wi and wi_0 and wi_1 in encoder/layers_0; only wi"):
        t5_fields(tensors(TINY, **more), "x")


def test_widths_that_the_heads_do_not_divide_are_reported_by_name():
    more = {"encoder/layers_0/attention/query/kernel": (6, 9)}
    with pytest.raises(UserError, match="queries of width 9 are not 2 heads"):
        t5_fields(tensors(TINY, **more), "x")


def test_xxl_has_the_published_number_of_parameters():
    xxl = T5Config(emb_dim=4096, num_heads=64, mlp_dim=10240, num_encoder_layers=24, num_decoder_layers=24)
    count = sum(int(np.prod(shape)) for shape in t5_parameter_shapes(xxl).values())
    assert count == 11_135_332_352
