"""A T5 whose frozen kernels are integers computes what their floats do, and keeps no float copy of them."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from poly_jax.errors import UserError
from poly_jax.experiment import Data, Experiment
from poly_jax.model.config import T5Config
from poly_jax.model.loss import TokenLoss
from poly_jax.model.parameters import parameter_shapes
from poly_jax.model.transformer import Transformer
from poly_jax.training.guards import check_trainable
from poly_jax.training.optimizer import Optimizer
from poly_jax.training.update import Update, start
from poly_jax.weights.layer_trees import stack_layers
from poly_jax.weights.parameter_names import is_adapter_parameter
from poly_jax.weights.quantized import dequantize, is_quantized, quantize, scale_name
from poly_jax.weights.tree import flatten, split, unflatten


def of_integers(parameters, dtype=jnp.int8):
    """Return the parameters with integer kernels, and those with the floats that the integers stand for."""
    integers, floats = {}, {}
    for name, leaf in flatten(parameters).items():
        if is_quantized(name):
            kernel, scale = quantize(leaf, dtype)
            integers |= {name: kernel, scale_name(name): scale}
            floats[name] = jnp.asarray(dequantize(np.asarray(kernel), np.asarray(scale)))
        else:
            integers[name] = floats[name] = leaf
    return unflatten(integers), unflatten(floats)


def quantized(model, **changes):
    config = dataclasses.replace(model.config, quantization="int8", **changes)
    return Transformer(config, model.adapters, model.train)


@pytest.mark.parametrize(("dtype", "largest"), [("int8", 127), ("int4", 7)])
def test_a_kernel_becomes_its_weights_over_a_step_for_each_output_feature(dtype, largest):
    kernel = np.random.default_rng(0).normal(size=(3, 20, 6)).astype(np.float32)
    integers, scale = quantize(kernel, jnp.dtype(dtype))
    assert (integers.dtype, scale.dtype, scale.shape) == (jnp.dtype(dtype), jnp.float32, (3, 6))
    np.testing.assert_allclose(scale, np.abs(kernel).max(1) / largest, rtol=1e-6)
    np.testing.assert_array_equal(integers, np.round(kernel / np.asarray(scale)[:, None]))
    half_a_step = np.abs(kernel).max(1, keepdims=True) / largest / 2
    floats = dequantize(np.asarray(integers), np.asarray(scale))
    assert np.all(np.abs(kernel - floats) <= half_a_step * (1 + 1e-5))


def test_quantizing_again_changes_no_integer():
    kernel = np.random.default_rng(1).normal(size=(50, 40)).astype(np.float32)
    integers, scale = map(np.asarray, quantize(kernel, jnp.dtype("int8")))
    again, scale_again = quantize(dequantize(integers, scale), jnp.dtype("int8"))
    np.testing.assert_array_equal(again, integers)
    np.testing.assert_allclose(scale_again, scale, rtol=1e-6)


def test_all_kernels_of_sites_are_integers_and_nothing_else_is(tiny):
    shapes = flatten(parameter_shapes(quantized(tiny.model))[0])
    integers = {name for name, leaf in shapes.items() if leaf.dtype == jnp.int8}
    # Two layers of the encoder with 4 + 3 maps, and two of the decoder with 4 + 4 + 3.
    assert len(integers) == 2 * 7 + 2 * 11
    assert {scale_name(name) for name in integers} <= shapes.keys()
    assert "decoder/logits_dense/kernel" in shapes.keys() - integers


@pytest.mark.parametrize("scanned", [False, True])
def test_logits_and_gradients_are_those_of_the_floats_that_integers_stand_for(tiny, scanned):
    integers, floats = of_integers(tiny.parameters)
    if scanned:
        integers, floats = stack_layers(integers, jnp.stack), stack_layers(floats, jnp.stack)
    of_floats = Transformer(dataclasses.replace(tiny.config, scan_layers=scanned), tiny.adapters)
    found = {}
    for name, model, tree in (
        ("integers", quantized(tiny.model, scan_layers=scanned), integers),
        ("floats", of_floats, floats),
    ):
        trained, frozen = split(tree, is_adapter_parameter)
        update = Update(model, TokenLoss(), Optimizer(warmup_fraction=0.0).transformation(2))
        step = jax.jit(update)
        state, metrics = step(start(trained, update.optimizer), frozen, tiny.batch, jax.random.key(0))
        found[name] = (metrics, flatten(state.trained))
    (metrics, trained), (expected_metrics, expected) = found["integers"], found["floats"]
    for name, value in expected_metrics.items():
        np.testing.assert_allclose(metrics[name], value, rtol=1e-5)
    for name, leaf in expected.items():
        np.testing.assert_allclose(trained[name], leaf, atol=2e-5, err_msg=name)


def test_a_scan_over_layers_keeps_integers_for_the_backward_pass(tiny):
    model = quantized(tiny.model, scan_layers=True)
    shapes = parameter_shapes(model)[0]
    trained, frozen = split(shapes, is_adapter_parameter)
    update = Update(model, TokenLoss(), Optimizer().transformation(2))
    state = jax.eval_shape(lambda tree: start(tree, update.optimizer), trained)
    program = jax.make_jaxpr(update)(state, frozen, tiny.batch, jax.random.key(0))
    kernels = {leaf.shape for name, leaf in flatten(frozen).items() if leaf.dtype == jnp.int8}
    floats = {
        variable.aval.shape
        for equation in program.eqns
        for variable in equation.outvars
        if jnp.issubdtype(variable.aval.dtype, jnp.floating)
    }
    assert kernels
    assert not kernels & floats


def test_integers_cannot_be_trained():
    config = T5Config(quantization="int8")
    with pytest.raises(UserError, match=r"T5Config.quantization is 'int8', and train.trainable is 'all'"):
        check_trainable(Experiment(config, Data("m", 4, 4)), "all")


def test_an_unknown_quantization_is_refused_by_name():
    with pytest.raises(UserError, match=r"T5Config.quantization is 'int2'; use one of none, int8, int4"):
        T5Config(quantization="int2")
