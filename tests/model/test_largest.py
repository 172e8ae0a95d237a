"""The largest values and their places are those of a stable sort."""

import re

import jax
import numpy as np
import pytest

from poly_jax.model.decoding.largest import largest

RNG = np.random.default_rng(0)
VALUES = {
    "different": RNG.normal(size=(3, 1280)),
    "equal": np.full((2, 1280), 0.5),
    "few different ones": RNG.integers(0, 3, (3, 1280)),
    "mostly impossible": np.where(RNG.random((3, 1280)) < 0.998, -np.inf, 1.0),
    "no whole blocks": RNG.integers(0, 50, (3, 1000)),
    "one block": RNG.normal(size=(3, 128)),
}


@pytest.mark.parametrize("k", [1, 4, 9, 60])
@pytest.mark.parametrize("values", VALUES.values(), ids=VALUES)
def test_of_equal_values_the_first_are_taken(values, k):
    values = values.astype(np.float32)
    places = np.argsort(-values, axis=-1, kind="stable")[:, :k]
    found, where = jax.jit(largest, static_argnums=1)(values, k)
    np.testing.assert_array_equal(where, places)
    np.testing.assert_array_equal(found, np.take_along_axis(values, places, axis=-1))


def test_no_sort_looks_into_a_whole_vocabulary():
    program = jax.jit(largest, static_argnums=1).lower(np.zeros((2, 32128), np.float32), 8)
    sorted_ = re.findall(r"chlo.top_k\(.*?: tensor<2x(\d+)xf32>", program.as_text(dialect="stablehlo"))
    assert sorted([int(width) for width in sorted_]) == [251, 1024]
