"""Tests of the conversion of examples with a task id."""

import numpy as np
import pytest

from poly_jax.data.feature_converter import RoutedEncDecFeatureConverter
from poly_jax.data.quiet import tf
from poly_jax.errors import UserError

EXAMPLES = tf.data.Dataset.from_generator(
    lambda: iter(
        [
            {"inputs": [7, 8, 1], "targets": [5, 1], "task_ids": [0]},
            {"inputs": [9, 1], "targets": [6, 4, 1], "task_ids": [300]},
        ]
    ),
    output_signature={
        "inputs": tf.TensorSpec([None], tf.int32),
        "targets": tf.TensorSpec([None], tf.int32),
        "task_ids": tf.TensorSpec([1], tf.int32),
    },
)


@pytest.mark.parametrize("lengths", [{"inputs": 4, "targets": 3}, {"inputs": 4, "targets": 3, "task_ids": 1}])
def test_a_batch_has_one_id_per_row(lengths):
    batch = next(RoutedEncDecFeatureConverter()(EXAMPLES, lengths).batch(2).as_numpy_iterator())
    expected = {
        "encoder_input_tokens": [[7, 8, 1, 0], [9, 1, 0, 0]],
        "decoder_target_tokens": [[5, 1, 0], [6, 4, 1]],
        "decoder_input_tokens": [[0, 5, 1], [0, 6, 4]],
        "decoder_loss_weights": [[1, 1, 0], [1, 1, 1]],
        "task_ids": [0, 300],
    }
    assert batch.keys() == expected.keys()
    for name, rows in expected.items():
        np.testing.assert_array_equal(batch[name], rows)
    assert batch["task_ids"].dtype == np.int32


def test_examples_without_an_id_are_refused():
    plain = EXAMPLES.map(lambda example: {name: example[name] for name in ("inputs", "targets")})
    with pytest.raises(ValueError, match="task_ids"):
        RoutedEncDecFeatureConverter()(plain, {"inputs": 4, "targets": 3})


def test_packing_is_refused():
    with pytest.raises(UserError, match="pack=True"):
        RoutedEncDecFeatureConverter(pack=True)
