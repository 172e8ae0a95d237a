"""The functions that seqio's Evaluator calls to predict and score, which run a Predictor on its data sets."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from poly_jax.data.quiet import seqio, tf
from poly_jax.evaluation.predict import Advance, Predictions, Predictor

_READ_AT_ONCE = 256


def model_functions(predictor: Predictor, advance: Advance) -> dict[Any, Callable[[tf.data.Dataset], Any]]:
    """Return a function for each kind of output that a metric may need.

    The kinds are predictions, predictions with scores, and scores of targets. The score of an example with
    answer choices is a vector with the scores of its choices. Each function takes a data set of (index, model
    features) and returns the output that `seqio.Evaluator.evaluate` documents.
    """

    def decode(dataset: tf.data.Dataset) -> tuple[list[int], Predictions]:
        indices, batch = _read(dataset)
        return indices, predictor.predict(batch["encoder_input_tokens"], batch["task_ids"], advance)

    def predict(dataset: tf.data.Dataset) -> list[tuple[int, np.ndarray]]:
        indices, predictions = decode(dataset)
        return list(zip(indices, predictions.tokens, strict=True))

    def predict_with_scores(dataset: tf.data.Dataset) -> tuple[list[tuple[int, Any]], dict[str, Any]]:
        indices, predictions = decode(dataset)
        outputs = list(zip(indices, predictions.tokens, strict=True))
        return outputs, {"scores": predictions.scores.tolist()}

    def score(dataset: tf.data.Dataset) -> list[tuple[int, Any]]:
        indices, batch = _read(dataset)
        ranks = "choices" in batch
        method = predictor.score_choices if ranks else predictor.score
        targets = batch["choices" if ranks else "decoder_target_tokens"]
        scores = method(batch["encoder_input_tokens"], targets, batch["task_ids"], advance)
        return list(zip(indices, scores.tolist(), strict=True))

    kinds = seqio.metrics.ModelOutputType
    return {
        kinds.PREDICTION: predict,
        kinds.PREDICTION_WITH_AUX: predict_with_scores,
        kinds.SCORE: score,
    }


def _read(dataset: tf.data.Dataset) -> tuple[list[int], dict[str, np.ndarray]]:
    chunks = list(dataset.batch(_READ_AT_ONCE).as_numpy_iterator())
    indices, batch = jax.tree.map(lambda *parts: np.concatenate(parts), *chunks)
    return indices.tolist(), batch
