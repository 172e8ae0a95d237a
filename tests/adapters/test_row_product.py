"""Products of rows with factors of their own are those of NumPy, and so are their gradients."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from poly_jax.adapters.row_product import row_product

SMALL, LARGE = (12, 4, 64), (64, 32, 64)


def operands(rows, length, d_in, d_out):
    rng = np.random.default_rng(0)
    shapes = (*rows, length, d_in), (*rows, d_in, d_out), (*rows, length, d_out)
    return tuple(rng.normal(size=shape).astype(np.float32) for shape in shapes)


@pytest.mark.parametrize("sizes", [SMALL, SMALL[::-1], LARGE], ids=["wide", "narrow", "large"])
@pytest.mark.parametrize("rows", [(), (3,), (2, 3)], ids=["no rows", "rows", "rows of adaptations"])
def test_products_and_gradients_are_those_of_numpy(rows, sizes):
    x, y, slope = operands(rows, *sizes)
    product, gradients = jax.vjp(row_product, x, y)
    np.testing.assert_allclose(product, x @ y, rtol=1e-5, atol=1e-5)
    in_x, in_y = gradients(slope)
    np.testing.assert_allclose(in_x, slope @ y.swapaxes(-1, -2), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(in_y, x.swapaxes(-1, -2) @ slope, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("of_x", "of_y"), [((3,), (1,)), ((1,), (3,)), ((3,), ())])
def test_rows_may_share_a_factor(of_x, of_y):
    """As those of a user's router that gives one mix to all rows."""
    (x, *_), (_, y, _), (*_, slope) = (operands(rows, *SMALL) for rows in (of_x, of_y, (3,)))
    _, gradients = jax.vjp(row_product, x, y)
    in_x, in_y = slope @ y.swapaxes(-1, -2), x.swapaxes(-1, -2) @ slope
    for found, each in zip(gradients(slope), (in_x, in_y), strict=True):
        expected = each if found.shape == each.shape else each.sum(0, keepdims=found.ndim == each.ndim)
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def test_under_vmap_each_has_its_own_gradient():
    x, y, slope = operands((2, 3), *SMALL)
    _, gradients = jax.vjp(jax.vmap(row_product), x, y)
    np.testing.assert_allclose(gradients(slope)[1], x.swapaxes(-1, -2) @ slope, rtol=1e-5, atol=1e-5)


def products_that_sum_over_rows_of_the_left(product, sizes):
    """How many products of the compiled gradient read their left operand by columns."""

    def gradient(x, y, slope):
        return jax.vjp(product, x, y)[1](slope)

    program = jax.jit(gradient).lower(*operands((6, 16), *sizes)).compile().as_text()
    found = re.findall(r" dot\(.*lhs_batch_dims=\{([\d,]+)\}, lhs_contracting_dims=\{(\d)\}", program)
    assert found, "the program has no batched product"
    return sum(int(contracted) == batch.count(",") + 1 for batch, contracted in found)


@pytest.mark.parametrize("sizes", [SMALL, SMALL[::-1]], ids=["wide", "narrow"])
def test_small_products_are_those_that_are_fast_on_a_cpu(sizes):
    """XLA's fast products take no left operand whose columns are summed over."""
    assert products_that_sum_over_rows_of_the_left(jnp.matmul, sizes) == 1
    assert products_that_sum_over_rows_of_the_left(row_product, sizes) == 0
