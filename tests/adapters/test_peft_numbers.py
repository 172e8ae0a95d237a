"""LoRA and (IA)^3 against numbers from PEFT 0.21.2: outputs of a small map, and the distribution of A."""

import jax
import numpy as np
import pytest

from poly_jax.adapters.ia3 import IA3
from poly_jax.adapters.lora import LoRA
from poly_jax.errors import UserError

# A linear map of 4 features (here [d_in, d_out]) and two inputs of three positions.
X = np.array(
    [
        [[0.5, 0.0, -1.5, -0.5], [-1.0, -0.5, 1.5, 0.0], [0.5, 1.0, -0.5, -1.5]],
        [[-1.0, 1.0, -0.5, 0.5], [0.5, -0.5, 0.5, -0.5], [1.5, -0.5, 0.5, -0.5]],
    ],
    np.float32,
)
KERNEL = np.array(
    [[0.5, -1.0, 0.5, 0.0], [0.5, 0.5, 1.0, -0.5], [-1.0, -1.0, 0.0, -1.0], [0.0, -1.5, 0.5, 0.5]], np.float32
)


def test_lora_equals_pefts_with_rank_2_and_lora_alpha_6():
    """PEFT's model has `lora_dropout` 0.5 and is in evaluation mode."""
    a = np.array([[0.0, 1.5], [1.5, -0.5], [1.0, -1.0], [0.0, 1.0]], np.float32)
    b = np.array([[0.0, -1.5, -1.5, 1.0], [-1.0, 0.0, 0.0, 0.0]], np.float32)
    expected = [
        [[-3.5, 8.5, 6.75, -3.25], [6.0, -4.125, -4.375, 1.0], [3.5, -1.75, -4.0, 2.25]],
        [[3.5, -3.25, -3.75, 3.25], [-0.5, 0.625, 0.625, -1.25], [-4.5, -0.375, 1.125, -1.25]],
    ]
    skill = LoRA(rank=2, alpha=6.0, dropout=0.5)
    mixed = skill.mix({"lora_a": a[None, None], "lora_b": b[None, None]}, np.ones((1, 1), np.float32))
    np.testing.assert_allclose(skill.apply(mixed, X, X @ KERNEL), expected, atol=1e-6)
    np.testing.assert_allclose(X @ skill.merge(mixed, KERNEL), expected, atol=1e-5)


def test_ia3_equals_pefts():
    v = np.array([0.5, 0.5, -1.0, 1.5], np.float32)
    expected = [
        [[0.875, 0.875, 0.0, 1.875], [-1.125, -0.375, 1.0, -1.875], [0.625, 1.375, -0.5, -1.125]],
        [[0.25, 0.625, -0.75, 0.375], [-0.25, -0.25, 0.5, -0.75], [0.0, -0.75, 0.0, -0.75]],
    ]
    mixed = IA3().mix({"ia3": v[None, None]}, np.ones((1, 1), np.float32))
    np.testing.assert_allclose(IA3().apply(mixed, X, X @ KERNEL), expected, atol=1e-6)


def draws(init, n_splits, rank=16, d_in=4096):
    specs = LoRA(rank=rank, init=init).parameters(n_splits, n_skills=2, d_in=d_in, d_out=64)
    assert not np.asarray(specs["lora_b"].init(jax.random.key(0), specs["lora_b"].shape)).any()
    return np.asarray(specs["lora_a"].init(jax.random.key(0), specs["lora_a"].shape))


@pytest.mark.parametrize(
    ("init", "n_splits", "largest", "deviation"),
    [
        # From PEFT's LoRA with 4,096 inputs and rank 16; the first also from its Poly with one split.
        ("kaiming", 1, 0.0156247, 0.0090305),
        ("gaussian", 1, None, 0.0624143),
        # From PEFT's Poly with four splits.
        ("kaiming", 4, 0.0312499, 0.0180592),
        # From the reference implementation: 0.0722 measured at 64 inputs, for any number of splits.
        ("mhr", 4, 0.0722 / 8, 0.0722 / 8 / np.sqrt(3)),
    ],
)
def test_a_has_the_range_and_deviation_of_the_other_implementation(init, n_splits, largest, deviation):
    values = draws(init, n_splits)
    np.testing.assert_allclose(values.std(), deviation, rtol=0.01)
    np.testing.assert_allclose(values.mean(), 0, atol=0.02 * deviation)
    if largest is not None:
        np.testing.assert_allclose(np.abs(values).max(), largest, rtol=1e-3)


def test_an_unknown_init_is_named_with_the_known_ones():
    with pytest.raises(UserError, match="init is 'pissa'; use one of mhr, kaiming, gaussian"):
        LoRA(init="pissa")
