"""LoRA skills against the formulas of arXiv 2211.03831 (section 3), written in NumPy float64 with loops."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from poly_jax.adapters.config import Adapters
from poly_jax.adapters.lora import LoRA
from poly_jax.errors import UserError
from poly_jax.model.config import T5Config
from poly_jax.model.context import Context, Cursor
from poly_jax.model.projection import Projection
from poly_jax.model.route import Route
from poly_jax.routing.learned import LearnedRouter

D_IN, D_OUT, RANK, ALPHA = 8, 12, 3, 2.0
SHAPES = [(1, 1), (1, 3), (4, 1), (4, 3)]


def drawn(seed, n_splits, n_skills):
    """Skills at one site, with both factors non-zero."""
    rng = np.random.default_rng(seed)
    return {
        "lora_a": rng.normal(size=(n_splits, n_skills, D_IN // n_splits, RANK)).astype(np.float32),
        "lora_b": rng.normal(size=(n_splits, n_skills, RANK, D_OUT // n_splits)).astype(np.float32),
    }


def mixed_by_hand(skills, weights):
    """A [d_in, rank] and B [rank, d_out] for one row: block q of each is mixed by the weights of head q."""
    a, b = (skills[name].astype(np.float64) for name in ("lora_a", "lora_b"))
    n_splits, n_skills = weights.shape
    a_blocks, b_blocks = [], []
    for q in range(n_splits):
        a_blocks.append(sum(weights[q, k] * a[q, k] for k in range(n_skills)))
        b_blocks.append(sum(weights[q, k] * b[q, k] for k in range(n_skills)))
    return np.concatenate(a_blocks, axis=0), np.concatenate(b_blocks, axis=1)


def adapted_by_hand(skills, weights, x, kernel):
    """`y = x W0 + (alpha / r) (x A) B` for one row."""
    a, b = mixed_by_hand(skills, weights)
    x = x.astype(np.float64)
    return x @ kernel + (ALPHA / RANK) * (x @ a) @ b


@jax.jit
def apply(skills, weights, x, kernel):
    skill = LoRA(rank=RANK, alpha=ALPHA)
    return skill.apply(skill.mix(skills, weights), x, x @ kernel)


@jax.jit
def merge(skills, weights, kernel):
    skill = LoRA(rank=RANK, alpha=ALPHA)
    return skill.merge(skill.mix(skills, weights), kernel)


@pytest.fixture
def rng():
    return np.random.default_rng(7)


def normal(rng, *shape):
    return rng.normal(size=shape).astype(np.float32)


def test_a_is_uniform_within_its_bound_and_b_is_zero():
    d_in = 4096
    specs = LoRA(rank=16).parameters(n_splits=4, n_skills=2, d_in=d_in, d_out=64)
    a, b = specs["lora_a"], specs["lora_b"]
    assert (a.shape, b.shape) == ((4, 2, d_in // 4, 16), (4, 2, 16, 16))
    values = np.asarray(a.init(jax.random.key(0), a.shape))
    bound = np.sqrt(1 / 3) / np.sqrt(d_in)
    # A uniform variable has variance bound^2 / 3; of 131072 draws the largest is within 0.1% of the bound.
    assert np.abs(values).max() <= bound
    assert np.abs(values).max() > 0.999 * bound
    np.testing.assert_allclose(values.var(), bound**2 / 3, rtol=0.02)
    np.testing.assert_allclose(values.mean(), 0, atol=0.01 * bound)
    assert not np.asarray(b.init(jax.random.key(0), b.shape)).any()


def test_fresh_skills_change_nothing(rng):
    specs = LoRA(rank=RANK).parameters(2, 3, D_IN, D_OUT)
    skills = {name: spec.init(jax.random.key(1), spec.shape) for name, spec in specs.items()}
    x, kernel = normal(rng, 2, 5, D_IN), normal(rng, D_IN, D_OUT)
    weights = jnp.full((2, 2, 3), 1 / 3)
    np.testing.assert_array_equal(apply(skills, weights, x, kernel), jnp.asarray(x) @ kernel)


def test_factors_of_the_neutral_value_change_nothing(rng):
    skills = {name: np.full_like(array, LoRA.neutral) for name, array in drawn(0, 4, 3).items()}
    x, kernel = normal(rng, 2, 5, D_IN), normal(rng, D_IN, D_OUT)
    weights = rng.uniform(size=(2, 4, 3)).astype(np.float32)
    np.testing.assert_array_equal(apply(skills, weights, x, kernel), jnp.asarray(x) @ kernel)


@pytest.mark.parametrize(("n_splits", "n_skills"), SHAPES)
def test_every_row_is_adapted_by_its_own_mix(rng, n_splits, n_skills):
    skills = drawn(0, n_splits, n_skills)
    x, kernel = normal(rng, 3, 5, D_IN), normal(rng, D_IN, D_OUT)
    weights = rng.uniform(size=(3, n_splits, n_skills)).astype(np.float32)
    got = apply(skills, weights, x, kernel)
    for row in range(3):
        expected = adapted_by_hand(skills, weights[row], x[row], kernel)
        np.testing.assert_allclose(got[row], expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("n_splits", "n_skills"), SHAPES)
def test_one_mix_for_all_rows_equals_the_same_mix_for_each(rng, n_splits, n_skills):
    skills = drawn(1, n_splits, n_skills)
    x, kernel = normal(rng, 2, 5, D_IN), normal(rng, D_IN, D_OUT)
    weights = rng.uniform(size=(n_splits, n_skills)).astype(np.float32)
    expected = np.stack([adapted_by_hand(skills, weights, row, kernel) for row in x])
    np.testing.assert_allclose(apply(skills, weights, x, kernel), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("n_splits", "n_skills"), SHAPES)
def test_the_merged_kernel_gives_the_adapted_output(rng, n_splits, n_skills):
    skills = drawn(2, n_splits, n_skills)
    x, kernel = normal(rng, 1, 5, D_IN), normal(rng, D_IN, D_OUT)
    weights = rng.uniform(size=(n_splits, n_skills)).astype(np.float32)
    a, b = mixed_by_hand(skills, weights)
    merged = merge(skills, weights, kernel)
    np.testing.assert_allclose(merged, kernel + ALPHA / RANK * a @ b, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(x @ merged, apply(skills, weights, x, kernel), rtol=1e-5, atol=1e-5)


def test_factors_are_averaged_separately_so_that_cross_skill_terms_exist(rng):
    skills = drawn(3, 1, 2)
    x, kernel = normal(rng, 1, 1, D_IN), np.zeros((D_IN, D_OUT), np.float32)
    a, b = skills["lora_a"][0].astype(np.float64), skills["lora_b"][0].astype(np.float64)
    cross = sum(0.25 * x[0] @ a[i] @ b[j] for i in range(2) for j in range(2)) * ALPHA / RANK
    got = apply(skills, np.full((1, 1, 2), 0.5, np.float32), x, kernel)
    np.testing.assert_allclose(got[0], cross, rtol=1e-5, atol=1e-5)


def test_a_head_changes_only_its_own_blocks(rng):
    skills = drawn(4, 4, 2)
    x, kernel = normal(rng, 1, 1, D_IN), np.zeros((D_IN, D_OUT), np.float32)
    weights = np.zeros((1, 4, 2), np.float32)
    weights[0, 2] = [0.3, 0.7]
    output = np.asarray(apply(skills, weights, x, kernel))[0, 0].reshape(4, -1)
    assert output[2].all()
    assert not np.delete(output, 2, axis=0).any()
    # And the head reads only its own block of the input.
    outside = x.copy().reshape(1, 1, 4, -1)
    outside[..., 2, :] = 0
    assert not np.asarray(apply(skills, weights, outside.reshape(x.shape), kernel)).any()


def test_the_update_scales_with_alpha_over_rank(rng):
    skills = drawn(5, 1, 1)
    mixed = LoRA(rank=RANK).mix(skills, jnp.ones((1, 1)))
    kernel = np.zeros((D_IN, D_OUT), np.float32)
    once, thrice = (LoRA(rank=RANK, alpha=alpha).merge(mixed, kernel) for alpha in (1.0, 3.0))
    np.testing.assert_allclose(once * RANK, mixed["lora_a"] @ mixed["lora_b"], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(thrice, 3 * once, rtol=1e-6)


def test_bfloat16_activations_and_kernels_stay_bfloat16(rng):
    skills = drawn(6, 4, 3)
    x, kernel = normal(rng, 2, 5, D_IN), normal(rng, D_IN, D_OUT)
    weights = rng.uniform(size=(2, 4, 3)).astype(np.float32)
    half = apply(skills, weights, jnp.asarray(x, jnp.bfloat16), jnp.asarray(kernel, jnp.bfloat16))
    assert half.dtype == jnp.bfloat16
    full = np.asarray(apply(skills, weights, x, kernel))
    np.testing.assert_allclose(half.astype(np.float32), full, atol=0.03 * np.abs(full).max())
    assert merge(skills, weights[0], jnp.asarray(kernel, jnp.bfloat16)).dtype == jnp.bfloat16


def test_a_rank_below_one_is_reported_by_name():
    with pytest.raises(UserError, match="rank is 0; it must be"):
        LoRA(rank=0)


@pytest.mark.parametrize(("alpha", "b_dtype"), [(1.0, jnp.bfloat16), (3.0, jnp.float32)])
def test_the_mixes_kept_for_decoding_have_the_smallest_width_and_the_same_output(alpha, b_dtype):
    skill = LoRA(rank=2, alpha=alpha)
    rng = np.random.default_rng(0)
    mixed = {
        "lora_a": jnp.asarray(rng.normal(size=(3, 8, 2)), jnp.float32),
        "lora_b": jnp.asarray(rng.normal(size=(3, 2, 6)), jnp.float32),
    }
    x = jnp.asarray(rng.normal(size=(3, 1, 8)), jnp.bfloat16)
    y = jnp.zeros((3, 1, 6), jnp.bfloat16)
    kept = skill.kept(mixed, x.dtype)
    assert (kept["lora_a"].dtype, kept["lora_b"].dtype) == (jnp.bfloat16, b_dtype)
    np.testing.assert_array_equal(skill.apply(kept, x, y), skill.apply(mixed, x, y))
    assert all(skill.kept(mixed, jnp.float32)[name] is mixed[name] for name in mixed)


def test_a_site_keeps_the_mix_in_the_dtype_of_its_inputs_while_decoding():
    config = T5Config(8, 4, 1, 4, 4, 1, 1, ("relu",))
    adapters = Adapters(LoRA(rank=2), LearnedRouter(), n_tasks=2, n_skills=2, sites="decoder/mlp/wo")
    context = Context(config, adapters)
    site = Projection(context, "decoder/mlp/wo", 4, jax.nn.initializers.ones, ("mlp", "embed"))
    x, route = jnp.ones((2, 1, 4), jnp.bfloat16), Route(np.array([0, 1], np.int32))
    shapes = jax.eval_shape(site.init, jax.random.key(0), x, route, Cursor(jnp.array(0), 3))
    assert {leaf.dtype for leaf in jax.tree.leaves(shapes["prefill"])} == {jnp.dtype(jnp.bfloat16)}
    assert {leaf.dtype for leaf in jax.tree.leaves(shapes["params"])} == {jnp.dtype(jnp.float32)}
