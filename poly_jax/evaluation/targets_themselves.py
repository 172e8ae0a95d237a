"""Predictions that are the targets themselves: they tell the names of metrics before there is a model."""

from typing import Any

from poly_jax.data.quiet import seqio, tf


def _right(dataset: tf.data.Dataset) -> list[tuple[int, Any]]:
    return [(index, example["decoder_target_tokens"]) for index, example in dataset.as_numpy_iterator()]


def _no_scores(dataset: tf.data.Dataset) -> list[tuple[int, Any]]:
    return [
        (index, [0.0] * len(example["choices"]) if "choices" in example else 0.0)
        for index, example in dataset.as_numpy_iterator()
    ]


def _right_with_scores(dataset: tf.data.Dataset) -> tuple[list[tuple[int, Any]], dict[str, Any]]:
    right = _right(dataset)
    return right, {"scores": [0.0] * len(right)}


TARGETS_THEMSELVES: dict[Any, Any] = {
    seqio.metrics.ModelOutputType.PREDICTION: _right,
    seqio.metrics.ModelOutputType.PREDICTION_WITH_AUX: _right_with_scores,
    seqio.metrics.ModelOutputType.SCORE: _no_scores,
}
"""Functions like those that `model_functions` makes for a model, by the output that a metric asks for."""
