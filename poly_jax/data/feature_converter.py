"""Turns examples with a task id into the model's batch."""

from collections.abc import Mapping
from typing import Any

from poly_jax.data.quiet import seqio, tf
from poly_jax.data.routed import TASK_IDS
from poly_jax.errors import UserError


class RoutedEncDecFeatureConverter(seqio.EncDecFeatureConverter):
    """seqio's encoder-decoder converter with `task_ids` carried along: int32 [] per example, [batch] batched.

    Raises:
      UserError: packing is asked for: a packed row needs one id per segment.
    """

    TASK_FEATURES: Mapping[str, Any] = {
        **seqio.EncDecFeatureConverter.TASK_FEATURES,
        TASK_IDS: seqio.FeatureConverter.FeatureSpec(dtype=tf.int32),
    }
    MODEL_FEATURES: Mapping[str, Any] = {
        **seqio.EncDecFeatureConverter.MODEL_FEATURES,
        TASK_IDS: seqio.FeatureConverter.FeatureSpec(dtype=tf.int32, rank=0),
    }

    def __init__(self, pack: bool = False, **options: Any) -> None:
        if pack:
            raise UserError("pack=True: examples with a task id cannot be packed yet; leave pack unset")
        super().__init__(pack=pack, **options)

    def __call__(self, ds: tf.data.Dataset, task_feature_lengths: Mapping[str, int]) -> tf.data.Dataset:
        """Converts `ds`; the lengths need name only inputs and targets."""
        return super().__call__(ds, {TASK_IDS: 1, **task_feature_lengths})

    def _convert_example(self, features: Mapping[str, tf.Tensor]) -> Mapping[str, tf.Tensor]:
        return {**super()._convert_example(features), TASK_IDS: features[TASK_IDS][0]}

    def get_model_feature_lengths(self, task_feature_lengths: Mapping[str, int]) -> Mapping[str, int]:
        """The length of each of the model's features, in tokens; 1 for the id."""
        return {**super().get_model_feature_lengths(task_feature_lengths), TASK_IDS: 1}
