"""Functions that keep one array for their backward pass are those of `jax.nn`, and so are their gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from poly_jax.model.one_residual import gelu, logsumexp, softmax

CASES = {
    "softmax": (softmax, lambda x: jax.nn.softmax(x, axis=-1)),
    "gelu": (gelu, lambda x: jax.nn.gelu(x, approximate=True)),
    "logsumexp": (logsumexp, lambda x: jax.nn.logsumexp(x, axis=-1)),
}


@pytest.fixture(params=CASES, name="pair")
def _pair(request):
    return CASES[request.param]


def inputs(scale=3.0):
    return jnp.asarray(np.random.default_rng(0).normal(size=(4, 5, 6)) * scale, jnp.float32)


def test_values_and_gradients_are_those_of_jax(pair):
    ours, theirs = pair
    x = inputs()
    value, pullback = jax.vjp(ours, x)
    expected, expected_pullback = jax.vjp(theirs, x)
    np.testing.assert_allclose(value, expected, rtol=1e-6, atol=1e-7)
    change = jnp.asarray(np.random.default_rng(1).normal(size=value.shape), jnp.float32)
    np.testing.assert_allclose(pullback(change)[0], expected_pullback(change)[0], rtol=2e-5, atol=1e-6)


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


def test_gelu_keeps_its_slope_beside_what_the_product_after_it_keeps():
    ours, theirs = CASES["gelu"]
    assert kept(ours, jnp.matmul) == 2
    assert kept(theirs, jnp.matmul) > 2


def test_a_normaliser_keeps_the_logits_alone():
    ours, _ = CASES["logsumexp"]
    assert kept(ours, lambda total, other: total * other.sum()) == 1
