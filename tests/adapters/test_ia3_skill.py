"""(IA)^3 skills against `y = (x W0) * v` of arXiv 2205.05638 (section 3.3), mixed by head in NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from poly_jax.adapters.ia3 import IA3

D_IN, D_OUT = 8, 12
SHAPES = [(1, 1), (1, 3), (4, 1), (4, 3)]


@jax.jit
def apply(skills, weights, x, kernel):
    return IA3().apply(IA3().mix(skills, weights), x, x @ kernel)


def vector_by_hand(ia3, weights):
    n_splits, n_skills = weights.shape
    blocks = [
        sum(weights[q, k] * ia3[q, k].astype(np.float64) for k in range(n_skills)) for q in range(n_splits)
    ]
    return np.concatenate(blocks)


@pytest.fixture(params=SHAPES, ids=lambda shape: f"splits_{shape[0]}_skills_{shape[1]}")
def case(request):
    n_splits, n_skills = request.param
    rng = np.random.default_rng(n_splits * 10 + n_skills)
    ia3 = rng.normal(size=(n_splits, n_skills, D_OUT // n_splits)).astype(np.float32)
    weights = rng.uniform(size=(3, n_splits, n_skills)).astype(np.float32)
    x = rng.normal(size=(3, 5, D_IN)).astype(np.float32)
    kernel = rng.normal(size=(D_IN, D_OUT)).astype(np.float32)
    return ia3, weights, x, kernel


def test_fresh_vectors_are_all_ones():
    spec = IA3().parameters(n_splits=4, n_skills=3, d_in=D_IN, d_out=D_OUT)["ia3"]
    assert spec.shape == (4, 3, D_OUT // 4)
    np.testing.assert_array_equal(spec.init(jax.random.key(0), spec.shape), np.ones(spec.shape))


def test_a_vector_of_the_neutral_value_changes_nothing(case):
    ia3, _, x, kernel = case
    skills, weights = {"ia3": np.full_like(ia3, IA3.neutral)}, np.full(ia3.shape[:2], 1 / ia3.shape[1])
    np.testing.assert_allclose(apply(skills, weights, x, kernel), x @ kernel, rtol=1e-5, atol=1e-5)


def test_every_row_is_rescaled_by_the_mix_of_its_task(case):
    ia3, weights, x, kernel = case
    got = apply({"ia3": ia3}, weights, x, kernel)
    for row in range(3):
        expected = (x[row].astype(np.float64) @ kernel) * vector_by_hand(ia3, weights[row])
        np.testing.assert_allclose(got[row], expected, rtol=1e-5, atol=1e-5)


def test_one_mix_for_all_rows_and_the_merged_kernel_agree(case):
    ia3, weights, x, kernel = case
    got = apply({"ia3": ia3}, weights[0], x, kernel)
    expected = (x.astype(np.float64) @ kernel) * vector_by_hand(ia3, weights[0])
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-5)
    merged = IA3().merge(IA3().mix({"ia3": ia3}, jnp.asarray(weights[0])), kernel)
    np.testing.assert_allclose(x @ merged, expected, rtol=1e-5, atol=1e-5)


def test_bfloat16_stays_bfloat16(case):
    ia3, weights, x, kernel = case
    half = apply({"ia3": ia3}, weights, jnp.asarray(x, jnp.bfloat16), jnp.asarray(kernel, jnp.bfloat16))
    assert half.dtype == jnp.bfloat16
    full = np.asarray(apply({"ia3": ia3}, weights, x, kernel))
    np.testing.assert_allclose(half.astype(np.float32), full, atol=0.03 * np.abs(full).max())
    merged = IA3().merge(IA3().mix({"ia3": ia3}, jnp.asarray(weights[0])), jnp.asarray(kernel, jnp.bfloat16))
    assert merged.dtype == jnp.bfloat16


@pytest.mark.parametrize("rows", [(), (1,)], ids=["one_mix", "mix_per_row"])
def test_bfloat16_outputs_are_rounded_after_the_float32_vector_rescaled_them(rows):
    # bfloat16 numbers are 2^-7 = 0.0078 apart above 1: 1.0036 alone would round to 1.
    mixed = IA3().mix({"ia3": np.float32([[[1.0036, 1.0]]])}, np.ones((*rows, 1, 1), np.float32))
    outputs = jnp.asarray([[[1.9921875, 3.0]]], jnp.bfloat16)
    got = IA3().apply(mixed, jnp.zeros((1, 1, 1), jnp.bfloat16), outputs)
    assert got.dtype == jnp.bfloat16
    # 1.9921875 * 1.0036 = 1.99936, which is nearer to 2 than to 1.9921875.
    np.testing.assert_array_equal(got.astype(np.float32), [[[2.0, 3.0]]])
