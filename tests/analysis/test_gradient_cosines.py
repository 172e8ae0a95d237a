"""Alignment of given gradients, computed by hand."""

import numpy as np
import pytest

from poly_jax.analysis.gradient_alignment import alignment


def test_cosines_are_computed_over_all_layers_and_for_each_layer():
    found = alignment(
        {
            "encoder/layers_0": np.array([[1.0, 0.0], [0.0, 1.0], [0.0, 0.0]]),
            "decoder/layers_0": np.array([[1.0], [1.0], [-2.0]]),
        }
    )
    root = np.sqrt(0.5)
    np.testing.assert_allclose(found.cosines, [[1, 0.5, -root], [0.5, 1, -root], [-root, -root, 1]])
    assert found.of_layer["decoder/layers_0"] == pytest.approx(-1 / 3)
    # The third task has no gradient in this layer.
    assert found.of_layer["encoder/layers_0"] == pytest.approx(0)
    assert found.mean == pytest.approx((0.5 - 2 * root) / 3)
    assert found.conflicting == pytest.approx(2 / 3)
