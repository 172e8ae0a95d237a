"""Rows lose the padding that none of them needs, and nothing else."""

import numpy as np
import pytest

from poly_jax.data.trimmed import row_widths, trimmed, trimmed_examples, widths


@pytest.mark.parametrize(
    ("longest", "length", "shortest", "expected"),
    [
        (60, 256, 64, 64),
        (64, 256, 64, 64),
        (65, 256, 64, 128),
        (129, 256, 64, 256),
        (0, 512, 64, 64),
        (7, 12, 16, 12),
        (10, 96, 64, 96),
        (40, 100, 16, 50),
        (20, 100, 16, 25),
        (3, 75, 16, 75),
    ],
)
def test_the_width_is_the_smallest_half_quarter_and_so_on_that_holds_the_longest_row(
    longest, length, shortest, expected
):
    rows = np.zeros((2, length), np.int32)
    rows[1, :longest] = 1
    assert row_widths(rows, shortest)[1] == expected
    assert trimmed(rows, shortest).shape == (2, expected)


def test_only_padding_at_the_end_of_all_rows_is_cut():
    rows = np.zeros((2, 3, 64), np.int32)
    rows[0, 1, :3] = 5, 0, 7
    rows[1, 2, 16] = 9
    got = trimmed(rows, 16)
    assert got.shape == (2, 3, 32)
    np.testing.assert_array_equal(np.pad(got, ((0, 0), (0, 0), (0, 32))), rows)


def test_inputs_targets_and_choices_have_widths_of_their_own():
    def padded(length, *lengths):
        return (np.arange(length) < np.array(lengths)[:, None]).astype(np.int32)

    targets = padded(128, 2, 20)
    arrays = {
        "encoder_input_tokens": padded(512, 130, 3),
        "decoder_input_tokens": np.pad(targets, ((0, 0), (1, 0)))[:, :-1],
        "decoder_target_tokens": targets,
        "decoder_loss_weights": targets,
        "task_ids": np.array([1, 0], np.int32),
        "choices": np.stack([padded(128, 2, 1), padded(128, 1, 0)]),
        "labels": np.array([0, 0], np.int32),
    }
    got = trimmed_examples(arrays)
    assert {name: leaf.shape for name, leaf in got.items()} == {
        "encoder_input_tokens": (2, 256),
        "decoder_input_tokens": (2, 32),
        "decoder_target_tokens": (2, 32),
        "decoder_loss_weights": (2, 32),
        "task_ids": (2,),
        "choices": (2, 2, 16),
        "labels": (2,),
    }
    assert widths(got) == (256, 32, 16)
    for name, leaf in got.items():
        cut = [(0, whole - kept) for whole, kept in zip(arrays[name].shape, leaf.shape, strict=True)]
        np.testing.assert_array_equal(np.pad(leaf, cut), arrays[name], err_msg=name)
