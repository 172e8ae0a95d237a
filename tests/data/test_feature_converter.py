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


def with_choices(shape):
    """The examples with two answer choices each; the second choice of the second example is absent."""
    tokens = iter(([[4, 4, 4, 1], [5, 1, 0, 0]], [[6, 1], [0, 0]]))
    choices = tf.data.Dataset.from_generator(lambda: tokens, output_signature=tf.TensorSpec(shape, tf.int32))
    columns = {"label": tf.constant([1, 0]), "example_id": tf.constant([8, 8])}
    return tf.data.Dataset.zip(EXAMPLES, choices, tf.data.Dataset.from_tensor_slices(columns)).map(
        lambda example, choices, numbers: {**example, **numbers, "choices": choices}
    )


def test_choices_are_padded_or_cut_to_the_length_of_the_targets():
    converter = RoutedEncDecFeatureConverter(choices=True)
    lengths = {"inputs": 4, "targets": 3}
    batch = next(converter(with_choices((2, None)), lengths).batch(2).as_numpy_iterator())
    np.testing.assert_array_equal(batch["choices"], [[[4, 4, 4], [5, 1, 0]], [[6, 1, 0], [0, 0, 0]]])
    np.testing.assert_array_equal(batch["labels"], [1, 0])
    np.testing.assert_array_equal(batch["example_ids"], [8, 8])
    assert {batch[name].dtype for name in ("choices", "labels", "example_ids")} == {np.dtype("int32")}


def test_choices_are_converted_only_where_they_are_asked_for_and_present():
    lengths = {"inputs": 4, "targets": 3}
    plain = RoutedEncDecFeatureConverter()(EXAMPLES, lengths).element_spec
    assert RoutedEncDecFeatureConverter()(with_choices((2, None)), lengths).element_spec == plain
    assert RoutedEncDecFeatureConverter(choices=True)(EXAMPLES, lengths).element_spec == plain


def test_examples_with_fewer_choices_are_padded_to_a_number_that_must_be_given():
    lengths = {"inputs": 4, "targets": 3}
    converter = RoutedEncDecFeatureConverter(choices=True, n_choices=3)
    batch = next(converter(with_choices((None, None)), lengths).batch(2).as_numpy_iterator())
    expected = [[[4, 4, 4], [5, 1, 0], [0, 0, 0]], [[6, 1, 0], [0, 0, 0], [0, 0, 0]]]
    np.testing.assert_array_equal(batch["choices"], expected)
    with pytest.raises(UserError, match="different numbers of answer choices; give n_choices"):
        RoutedEncDecFeatureConverter(choices=True)(with_choices((None, None)), lengths)
