"""Functions that keep one array for their backward pass are those of `jax.nn`, and so are their gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from poly_jax.model.one_residual import gated_gelu, logsumexp, softmax

CASES = {
    "softmax": (softmax, lambda x: jax.nn.softmax(x, axis=-1)),
    "gated_gelu": (
        lambda x: gated_gelu(x[..., :3], x[..., 3:]),
        lambda x: jax.nn.gelu(x[..., :3], approximate=True) * x[..., 3:],
    ),
    "logsumexp": (logsumexp, lambda x: jax.nn.logsumexp(x, axis=-1)),
}


@pytest.fixture(params=CASES, name="pair")
def _pair(request):
    return CASES[request.param]


def inputs(scale=3.0):
    return jnp.asarray(np.random.default_rng(0).normal(size=(4, 5, 6)) * scale, jnp.float32)


def test_values_and_gradients_are_those_of_jax_in_float64(pair):
    ours, theirs = pair
    value, pullback = jax.vjp(ours, inputs())
    change = np.random.default_rng(1).normal(size=value.shape).astype(np.float32)
    with jax.enable_x64(True):
        expected, expected_pullback = jax.vjp(theirs, np.asarray(inputs(), np.float64))
        (expected_gradient,) = expected_pullback(change.astype(np.float64))
    np.testing.assert_allclose(value, expected, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(pullback(change)[0], expected_gradient, rtol=2e-6, atol=1e-6)


def test_numbers_so_large_that_their_exponentials_overflow_have_finite_gradients(pair):
    ours, _ = pair
    gradient = jax.grad(lambda x: ours(x).sum())(inputs(1e3))
    assert np.isfinite(gradient).all()


def kept(function, product):
    """The number of arrays of the input's size that are kept where a product follows the function."""
    x = inputs()
    other = jnp.ones((6, 3))
    _, pullback = jax.vjp(lambda x, other: product(function(x), other), x, other)
    return [leaf.size for leaf in jax.tree.leaves(pullback)].count(x.size)


def test_a_softmax_keeps_what_the_product_after_it_keeps():
    ours, theirs = CASES["softmax"]
    assert kept(ours, jnp.matmul) == 1
    # Once this fails, `poly_jax.model.one_residual.softmax` may go.
    assert kept(theirs, jnp.matmul) == 2


def test_a_gated_gelu_keeps_its_arguments_and_no_part_of_the_forward_pass():
    """XLA would keep a part that the backward pass has in the same form, in place of computing it again."""
    rows, width = 64, 256

    def kept(activation):
        """The arrays that each of a chain of layers adds to what the gradient needs beside its results."""

        def loss(shift, kernels):
            x = jnp.ones((rows, 8)) + shift
            for wide, linear, narrow in kernels:
                x = jnp.tanh(activation(x @ wide, x @ linear) @ narrow)
            return x.sum()

        def largest(layers):
            shapes = [(8, width), (8, width), (width, 8)]
            kernels = [tuple(jax.ShapeDtypeStruct(each, jnp.float32) for each in shapes)] * layers
            shift = jax.ShapeDtypeStruct((), jnp.float32)
            program = jax.jit(jax.grad(loss, argnums=1)).lower(shift, kernels).compile()
            return program.memory_analysis().temp_size_in_bytes

        return (largest(12) - largest(4)) / 8 / (4 * rows * width)

    definition = kept(lambda gate, linear: jax.nn.gelu(gate) * linear)
    assert definition - kept(gated_gelu) > 0.9


def test_a_normaliser_keeps_the_logits_alone():
    ours, _ = CASES["logsumexp"]
    assert kept(ours, lambda total, other: total * other.sum()) == 1
