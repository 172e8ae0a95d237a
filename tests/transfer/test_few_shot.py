"""Batches of few-shot examples."""

import numpy as np
import pytest

from poly_jax.errors import UserError
from poly_jax.transfer.few_shot import FewShotBatches, batch_indices, draw_batch, first_examples


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


def test_a_restored_stream_continues_with_the_next_batch(tmp_path):
    values = {"x": np.arange(7)}
    stream = FewShotBatches(values, batch_size=3, seed=1)
    next(stream), next(stream)
    stream.save(tmp_path / "position")
    expected = next(stream)["x"]
    again = FewShotBatches(values, batch_size=3, seed=1)
    again.restore(tmp_path / "position")
    np.testing.assert_array_equal(next(again)["x"], expected)


def test_an_empty_set_of_examples_is_refused():
    with pytest.raises(UserError, match="no examples"):
        FewShotBatches({"x": np.zeros((0, 2))}, batch_size=1, seed=0)


@pytest.fixture
def prompted():
    """Three examples with 2, 1 and 4 prompts; `x` is the index of the row."""
    return {"x": np.arange(7), "example_ids": np.array([5, 5, 2, 9, 9, 9, 9])}


def test_an_example_with_several_prompts_counts_once_and_all_its_prompts_are_drawn(prompted):
    stream = FewShotBatches(prompted, batch_size=3, seed=1)
    assert len(stream) == 3
    drawn = np.stack([next(stream)["x"] for _ in range(400)])
    examples = prompted["example_ids"][drawn]
    assert (np.sort(examples, axis=1) == [2, 5, 9]).all()
    counts = np.bincount(drawn.ravel(), minlength=7)
    # Each example is drawn 400 times, equally by each of its prompts, to five standard deviations.
    shares = np.array([1 / 2, 1 / 2, 1, 1 / 4, 1 / 4, 1 / 4, 1 / 4])
    assert (np.abs(counts - 400 * shares) <= 5 * np.sqrt(400 * shares * (1 - shares))).all()


def test_prompts_are_drawn_by_seed_and_step_without_changing_the_order_of_examples(prompted):
    by_example = np.array([2, 5, 9])
    for step in range(4):
        batch = draw_batch(prompted, 2, seed=3, step=step)
        assert set(batch) == {"x"}
        np.testing.assert_array_equal(
            prompted["example_ids"][batch["x"]], by_example[batch_indices(3, 2, seed=3, step=step)]
        )
        np.testing.assert_array_equal(draw_batch(prompted, 2, seed=3, step=step)["x"], batch["x"])


def test_the_first_examples_keep_all_of_their_prompts(prompted):
    np.testing.assert_array_equal(first_examples(prompted, 2)["x"], [0, 1, 2])
    np.testing.assert_array_equal(first_examples({"x": prompted["x"]}, 2)["x"], [0, 1])


def test_the_first_examples_of_a_mixture_are_the_first_examples_of_each_task(prompted):
    rows = {**prompted, "task_ids": np.array([0, 0, 0, 1, 1, 1, 1])}
    np.testing.assert_array_equal(first_examples(rows, 1)["x"], [0, 1, 3, 4, 5, 6])
    single = {"x": np.arange(7), "task_ids": rows["task_ids"]}
    np.testing.assert_array_equal(first_examples(single, 2)["x"], [0, 1, 3, 4])
