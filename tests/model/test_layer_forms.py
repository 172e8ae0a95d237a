"""Scanned layers and rematerialised layers compute the same as plain layers."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util

from poly_jax.errors import UserError
from poly_jax.model.config import T5Config
from poly_jax.model.parameters import parameter_shapes
from poly_jax.model.transformer import Transformer
from poly_jax.weights.layer_trees import stack_layers, unstack_layers


def with_config(model, **fields):
    return dataclasses.replace(model, config=dataclasses.replace(model.config, **fields))


def with_granularity(model, granularity):
    return dataclasses.replace(model, adapters=dataclasses.replace(model.adapters, granularity=granularity))


def flat(tree):
    return traverse_util.flatten_dict(tree, sep="/")


def assert_trees_close(got, expected, tolerance=2e-5):
    got, expected = flat(got), flat(expected)
    assert set(got) == set(expected)
    for name, leaf in expected.items():
        scale = max(float(np.abs(leaf).max()), 1e-3)
        np.testing.assert_allclose(got[name], leaf, atol=tolerance * scale, err_msg=name)


@pytest.fixture(scope="module")
def plain(tiny, gradients_of):
    """Gradients and logits of plain layers."""
    return gradients_of(tiny.model, tiny.parameters, tiny.batch)


@pytest.mark.parametrize(
    ("scan_layers", "remat"),
    [(False, "minimal"), (True, "none"), (True, "full"), (True, "offload")],
    ids=["minimal", "scanned", "scanned_full", "scanned_offload"],
)
def test_scanned_and_rematerialised_layers_have_the_logits_and_gradients_of_plain_layers(
    tiny, plain, gradients_of, scan_layers, remat
):
    def stacked(tree):
        return stack_layers(tree) if scan_layers else tree

    gradients, logits = plain
    model = with_config(tiny.model, scan_layers=scan_layers, remat=remat)
    got_gradients, got_logits = gradients_of(model, stacked(tiny.parameters), tiny.batch)
    np.testing.assert_allclose(got_logits, logits, atol=2e-5 * float(jnp.abs(logits).max()))
    assert all(np.asarray(leaf).any() for name, leaf in flat(gradients).items() if "/skills/" in name)
    assert_trees_close(got_gradients, stacked(gradients))


@pytest.mark.parametrize(("remat", "moves"), [("minimal", False), ("offload", True)])
def test_only_offloading_moves_products_to_the_memory_of_the_host_and_back(tiny, remat, moves):
    model = with_config(tiny.model, scan_layers=True, remat=remat)
    batch = {name: tiny.batch[name] for name in ("encoder_input_tokens", "decoder_input_tokens", "task_ids")}

    def total(parameters):
        return model.apply({"params": parameters}, **batch).sum()

    program = str(jax.make_jaxpr(jax.grad(total))(stack_layers(tiny.parameters)))
    for memory in ("Host", "Device"):
        assert (f"devices=(MemorySpace.{memory},)" in program) == moves


def test_a_router_of_the_whole_stack_reaches_scanned_layers(tiny, logits_of):
    model = with_granularity(tiny.model, "stack")
    parameters = tiny.parameters_of(model)
    logits = logits_of(model, parameters, tiny.batch)
    scanned = logits_of(with_config(model, scan_layers=True), stack_layers(parameters), tiny.batch)
    np.testing.assert_allclose(scanned, logits, atol=2e-5 * float(jnp.abs(logits).max()))


@pytest.mark.parametrize("granularity", ["fine", "layer", "block", "stack", "coarse"])
def test_the_scanned_tree_has_the_shapes_of_the_stacked_tree(tiny, granularity):
    apart = with_granularity(tiny.model, granularity)
    shapes, _ = parameter_shapes(with_config(apart, scan_layers=True))
    expected = stack_layers(tiny.parameters_of(apart))
    assert {name: leaf.shape for name, leaf in flat(shapes).items()} == {
        name: leaf.shape for name, leaf in flat(expected).items()
    }


def test_logical_axes_name_the_layer_axis_of_scanned_parameters(tiny):
    _, apart = parameter_shapes(tiny.model)
    _, scanned = parameter_shapes(with_config(tiny.model, scan_layers=True))
    assert tuple(apart["encoder"]["layers_0"]["attention"]["query"]["kernel"]) == ("embed", "joined_kv")
    layers = scanned["encoder"]["layers"]
    assert tuple(layers["attention"]["query"]["kernel"]) == ("layers", "embed", "joined_kv")
    assert tuple(layers["mlp"]["wo"]["router"]["logits"]) == ("layers", "tasks", "splits", "skills")


@pytest.mark.parametrize("convert", [np.asarray, jnp.asarray], ids=["numpy", "jax"])
def test_trees_convert_both_ways_without_loss(convert):
    def leaf(i):
        return convert(np.full((2, 3), float(i), np.float32))

    # With twelve layers, "layers_10" sorts before "layers_2" by name.
    apart = {
        "encoder": {
            **{f"layers_{i}": {"mlp": {"wo": {"kernel": leaf(i)}}, "norm": leaf(-i)} for i in range(12)},
            "encoder_norm": {"scale": leaf(50)},
        },
        "router": {"logits": leaf(60)},
    }
    stacked = stack_layers(apart)
    kernels = stacked["encoder"]["layers"]["mlp"]["wo"]["kernel"]
    assert type(kernels) is type(leaf(0)) or isinstance(kernels, jax.Array)
    np.testing.assert_array_equal(kernels[:, 0, 0], np.arange(12))
    back = unstack_layers(stacked)
    assert set(flat(back)) == set(flat(apart))
    for name, value in flat(apart).items():
        np.testing.assert_array_equal(flat(back)[name], value)
    again = stack_layers(back)
    for name, value in flat(stacked).items():
        np.testing.assert_array_equal(flat(again)[name], value)


def test_stacking_a_tree_without_numbered_layers_changes_nothing():
    tree = {"encoder": {"layers": {"norm": np.ones((3, 2))}}, "token_embedder": {"embedding": np.ones(4)}}
    assert set(flat(stack_layers(tree))) == set(flat(tree))


def test_models_without_adapters_can_be_scanned(tiny):
    bare = Transformer(dataclasses.replace(tiny.config, scan_layers=True))
    shapes, _ = parameter_shapes(bare)
    assert flat(shapes)["decoder/layers/encoder_decoder_attention/out/kernel"].shape == (2, 16, 16)


@pytest.mark.parametrize(
    ("field", "value", "named"),
    [
        ("remat", "some", "T5Config.remat is 'some'; use one of none, minimal, offload, full"),
        ("dtype", "float16", "T5Config.dtype is 'float16'"),
        ("mlp_activations", ("swish",), "T5Config.mlp_activations is"),
        ("num_heads", 0, "T5Config.num_heads is 0"),
        (
            "relative_attention_max_distance",
            16,
            "max_distance is 16; it must be above half of the 32 buckets",
        ),
    ],
)
def test_impossible_settings_of_the_model_are_refused_by_name(field, value, named):
    with pytest.raises(UserError, match=named):
        T5Config(**{field: value})
