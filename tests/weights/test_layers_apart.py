"""Stacked layers are split into separate layers, as in T5X's T5 example, reading each stacked array once."""

import weakref

import numpy as np
import orbax.checkpoint as ocp
import pytest

from poly_jax import cli
from poly_jax.errors import UserError
from poly_jax.model.config import T5Config
from poly_jax.weights.backbone import open_backbone, read_backbone
from poly_jax.weights.layer_trees import stack_layers
from poly_jax.weights.layers_apart import layers_apart
from poly_jax.weights.t5_shapes import t5_parameter_shapes
from poly_jax.weights.tensors import Tensor, of_tree
from poly_jax.weights.tree import flatten, unflatten


def config_of(path) -> T5Config:
    return T5Config.of_checkpoint(open_backbone(path).stated_fields(), path)


VERSIONS = ["t5x_tiny_v1_0", "t5x_tiny_v1_1"]


def scalable(tree, heads, kv):
    """Convert a tree to scalable_t5's form: layers on axis 1, and a separate axis for heads."""
    stacked = {}
    for name, leaf in flatten(stack_layers(tree)).items():
        stack, _, rest = name.partition("/layers/")
        if not rest:
            stacked[name] = leaf
            continue
        leaf = np.moveaxis(leaf, 0, 1)
        if "attention/" in rest and rest.endswith("out/kernel"):
            leaf = leaf.reshape(heads, kv, *leaf.shape[1:]).swapaxes(1, 2)
        elif "attention/" in rest and rest.endswith("kernel"):
            leaf = leaf.reshape(*leaf.shape[:2], heads, kv)
        stacked[f"{stack}/{stack}/{rest}"] = leaf
    return unflatten(stacked)


@pytest.mark.parametrize("version", VERSIONS)
def test_a_scanned_t5x_checkpoint_equals_the_one_with_separate_layers(shared_data, tmp_path, version):
    tree = read_backbone(shared_data / "t5x" / version / "checkpoint_1100000")
    heads = tree["encoder"]["relpos_bias"]["rel_embedding"].shape[0]
    kv = tree["encoder"]["layers_0"]["attention"]["query"]["kernel"].shape[1] // heads
    stacked = scalable(tree, heads, kv)
    assert stacked["encoder"]["encoder"]["attention"]["query"]["kernel"].ndim == 4
    ocp.PyTreeCheckpointer().save(tmp_path / "checkpoint_1" / "state", {"target": stacked})
    got, expected = flatten(read_backbone(tmp_path / "checkpoint_1")), flatten(tree)
    assert got.keys() == expected.keys()
    for name, array in expected.items():
        np.testing.assert_array_equal(got[name], array, err_msg=name)


def test_an_umt5_in_scalable_t5s_form_is_imported(tmp_path, own_folder):
    config = T5Config(
        vocab_size=12,
        emb_dim=4,
        num_heads=2,
        head_dim=3,
        mlp_dim=5,
        num_encoder_layers=3,
        num_decoder_layers=2,
        relative_bias_in_layers=True,
    )
    rng = np.random.default_rng(0)
    expected = {name: rng.normal(size=shape) for name, shape in t5_parameter_shapes(config).items()}
    stacked = scalable(unflatten(expected), heads=2, kv=3)
    assert stacked["decoder"]["decoder"]["relpos_bias"]["rel_embedding"].shape == (2, 2, 32)
    assert stacked["encoder"]["encoder"]["relpos_bias"]["rel_embedding"].shape == (2, 3, 32)
    ocp.PyTreeCheckpointer().save(tmp_path / "checkpoint_1" / "state", {"target": stacked})
    assert cli.main(["import", f"--from={tmp_path / 'checkpoint_1'}", "--output=b"]) == 0
    assert config_of("b") == config
    got = flatten(read_backbone("b"))
    assert got.keys() == expected.keys()
    for name, array in expected.items():
        np.testing.assert_array_equal(got[name], array, err_msg=name)


def test_layers_on_the_first_axis_are_distinguished_from_layers_on_the_second():
    stacked = {
        "token_embedder/embedding": np.zeros((9, 5)),
        "encoder/layers/pre_attention_layer_norm/scale": np.arange(15.0).reshape(3, 5),
    }
    first = layers_apart(of_tree(stacked), "x")
    second = layers_apart(
        of_tree({name: leaf.T if "norm" in name else leaf for name, leaf in stacked.items()}), "x"
    )
    for layer in range(3):
        name = f"encoder/layers_{layer}/pre_attention_layer_norm/scale"
        np.testing.assert_array_equal(first[name].load(), np.arange(15.0).reshape(3, 5)[layer])
        np.testing.assert_array_equal(second[name].load(), first[name].load())


def test_scanned_relative_position_biases_are_split_into_layers():
    stacked = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    apart = layers_apart(of_tree({"encoder": {"encoder": {"relpos_bias": {"rel_embedding": stacked}}}}), "x")
    for layer in range(3):
        found = apart[f"encoder/layers_{layer}/relpos_bias/rel_embedding"].load()
        np.testing.assert_array_equal(found, stacked[:, layer])


@pytest.mark.parametrize("order", [list, sorted, reversed])
def test_every_stacked_array_is_read_once_in_each_pass(order):
    reads = []

    def tensor(name):
        def load():
            reads.append(name)
            return np.arange(24, dtype=np.float32).reshape(2, 3, 4)

        return Tensor((2, 3, 4), np.dtype(np.float32), load)

    names = ["encoder/encoder/mlp/wo/kernel", "encoder/encoder/mlp/wi/kernel"]
    apart = layers_apart({name: tensor(name) for name in names}, "x")
    for passes in (1, 2):
        for name in order(list(apart)):
            layer = int(name.split("/")[1].removeprefix("layers_"))
            np.testing.assert_array_equal(apart[name].load(), np.arange(24).reshape(2, 3, 4)[:, layer])
        assert sorted(reads) == sorted(names * passes)


def test_a_stacked_array_is_released_after_its_last_layer_is_read():
    arrays = []

    def load():
        arrays.append(weakref.ref(array := np.zeros((2, 3, 4), np.float32)))
        return array

    tensor = Tensor((2, 3, 4), np.dtype(np.float32), load)
    first, second, third = layers_apart({"encoder/encoder/mlp/wi/kernel": tensor}, "x").values()
    first.load(), second.load()
    assert arrays[0]() is not None
    third.load()
    assert arrays[0]() is None


def test_a_stacked_array_with_another_number_of_layers_is_reported_by_name():
    stacked = {
        "encoder/encoder/mlp/wi/kernel": np.zeros((2, 3, 4)),
        "encoder/encoder/mlp/wo/kernel": np.zeros((4, 2, 2)),
    }
    with pytest.raises(
        UserError, match=r"wo/kernel \[4, 2, 2\] is not 3 layers on axis 1, as .*wi/kernel is"
    ):
        layers_apart(of_tree(stacked), "x")
