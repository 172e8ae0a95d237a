"""Batches of a handful of examples."""

import numpy as np
import pytest

from poly_jax.errors import UserError
from poly_jax.transfer.few_shot import FewShotBatches, batch_indices


def test_every_epoch_holds_every_example_once():
    drawn = np.concatenate([batch_indices(5, 2, seed=3, step=step) for step in range(5)])
    for epoch in (drawn[:5], drawn[5:]):
        assert sorted(epoch) == [0, 1, 2, 3, 4]


def test_a_batch_larger_than_the_examples_repeats_them():
    assert np.bincount(batch_indices(3, 6, seed=0, step=0)).tolist() == [2, 2, 2]


def test_seeds_differ_and_each_is_reproducible():
    a, b = ([batch_indices(16, 4, seed, step).tolist() for step in range(8)] for seed in (0, 1))
    assert a != b
    assert a == [batch_indices(16, 4, 0, step).tolist() for step in range(8)]


def test_a_restored_stream_goes_on_with_the_batch_that_came_next(tmp_path):
    values = {"x": np.arange(7)}
    stream = FewShotBatches(values, batch_size=3, seed=1)
    next(stream), next(stream)
    stream.save(tmp_path / "position")
    expected = next(stream)["x"]
    again = FewShotBatches(values, batch_size=3, seed=1)
    again.restore(tmp_path / "position")
    np.testing.assert_array_equal(next(again)["x"], expected)


def test_no_examples_is_an_error():
    with pytest.raises(UserError, match="no examples"):
        FewShotBatches({"x": np.zeros((0, 2))}, batch_size=1, seed=0)
