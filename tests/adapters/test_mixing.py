"""Factors of an inventory are mixed for every row and split, without rearranging the inventory."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from poly_jax.adapters.lora import LoRA
from poly_jax.adapters.mixing import mixed_in, mixed_out

ROWS, SPLITS, SKILLS, D_IN, D_OUT, RANK, LENGTH = 3, 2, 5, 12, 28, 4, 7


@pytest.mark.parametrize("splits", [1, SPLITS])
@pytest.mark.parametrize("rows", [(), (ROWS,), (ROWS, 2)], ids=["shared", "by row", "packed"])
def test_every_row_and_split_gets_the_sum_of_the_weighted_skills(rows, splits):
    rng = np.random.default_rng(0)
    weights = rng.normal(size=(*rows, splits, SKILLS)).astype(np.float32)
    a = rng.normal(size=(splits, SKILLS, D_IN // splits, RANK)).astype(np.float32)
    b = rng.normal(size=(splits, SKILLS, RANK, D_OUT // splits)).astype(np.float32)
    into, out = mixed_in(weights, a), mixed_out(weights, b)
    assert into.shape == (*rows, D_IN, RANK)
    assert out.shape == (*rows, RANK, D_OUT)
    for row in np.ndindex(rows):
        blocks = [
            (
                sum(weights[(*row, h, k)] * a[h, k] for k in range(SKILLS)),
                sum(weights[(*row, h, k)] * b[h, k] for k in range(SKILLS)),
            )
            for h in range(splits)
        ]
        a_of_row = np.concatenate([a for a, _ in blocks], axis=0)
        b_of_row = np.concatenate([b for _, b in blocks], axis=1)
        np.testing.assert_allclose(into[row], a_of_row, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(out[row], b_of_row, rtol=1e-5, atol=1e-6)


def shape(*sizes):
    return jax.ShapeDtypeStruct(sizes, jnp.float32)


@pytest.fixture(scope="module", params=[1, SPLITS], ids=["one split", "splits"])
def program(request):
    """The compiled gradient of a site with respect to its skills, weights and inputs."""
    splits = request.param
    skill = LoRA(rank=RANK)

    def loss(parameters, weights, inputs, slope):
        outputs = jnp.zeros((ROWS, LENGTH, D_OUT))
        return jnp.sum(skill.apply(skill.mix(parameters, weights), inputs, outputs) * slope)

    given = (
        {
            "lora_a": shape(splits, SKILLS, D_IN // splits, RANK),
            "lora_b": shape(splits, SKILLS, RANK, D_OUT // splits),
        },
        shape(ROWS, splits, SKILLS),
        shape(ROWS, LENGTH, D_IN),
        shape(ROWS, LENGTH, D_OUT),
    )
    return jax.jit(jax.grad(loss, argnums=(0, 1, 2))).lower(*given).compile().as_text()


def shapes_of(operation, program):
    """The shapes that an operation of this kind results in, as sorted sizes."""
    found = re.findall(rf"f32\[([\d,]+)\]\S* {operation}\(", program)
    return [sorted(map(int, shape.split(","))) for shape in found]


def test_the_inventory_is_not_transposed(program):
    moved = shapes_of("transpose", program) + shapes_of("copy", program)
    assert moved, "the mixes are moved, so this finds no transpose of any kind"
    inventories = [D_IN * RANK * SKILLS, D_OUT * RANK * SKILLS]
    assert not [shape for shape in moved if np.prod(shape) in inventories]


def test_the_gradient_of_a_mixed_factor_is_a_product_with_the_inputs_as_they_lie(program):
    """The other order of this product, [rows, d_in, rank], takes five times as long on a CPU."""
    products = re.findall(r"f32\[([\d,]+)\]\S* dot\(", program)
    assert f"{ROWS},{RANK},{D_IN}" in products
    assert f"{ROWS},{D_IN},{RANK}" not in products
