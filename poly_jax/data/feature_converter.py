"""Converts examples with a task id into the model's batch."""

from collections.abc import Mapping
from typing import Any

from poly_jax.data.quiet import seqio, tf
from poly_jax.data.routed import TASK_IDS
from poly_jax.errors import UserError

_CHOICES = "choices"
# The numbers of an example that stay as they are, and their names in a batch.
_NUMBERS = {"label": "labels", "example_id": "example_ids"}
CHOICE_FEATURES = (_CHOICES, *_NUMBERS)


class RoutedEncDecFeatureConverter(seqio.EncDecFeatureConverter):
    """seqio's encoder-decoder converter, which also keeps `task_ids`: int32, [] per example, [batch] batched.

    With `choices`, examples with answer choices get three more int32 arrays, from their fields `choices`,
    `label` and `example_id`: `choices` [choices, targets length] holds tokens, and a choice without tokens is
    absent; `labels` [] is the index of the correct choice; `example_ids` [] is equal for rows that show the
    same example under different prompts. Examples with fewer than `n_choices` choices are filled up with
    absent ones; `n_choices` None means that all examples have equally many.

    `decoder_input_tokens` begin with `bos_id`, which should be the model's `decoder_start_id` (default 0).

    Raises:
      UserError: `pack` is set. A packed row would need one task id per segment.
    """

    TASK_FEATURES: Mapping[str, Any] = {
        **seqio.EncDecFeatureConverter.TASK_FEATURES,
        TASK_IDS: seqio.FeatureConverter.FeatureSpec(dtype=tf.int32),
    }
    MODEL_FEATURES: Mapping[str, Any] = {
        **seqio.EncDecFeatureConverter.MODEL_FEATURES,
        TASK_IDS: seqio.FeatureConverter.FeatureSpec(dtype=tf.int32, rank=0),
    }

    def __init__(
        self, pack: bool = False, choices: bool = False, n_choices: int | None = None, **options: Any
    ) -> None:
        if pack:
            raise UserError("pack=True: the converter cannot pack examples with a task id; leave pack unset")
        super().__init__(pack=pack, **options)
        self._with_choices = _WithChoices(**options) if choices else None
        self._n_choices = n_choices

    def __call__(self, ds: tf.data.Dataset, task_feature_lengths: Mapping[str, int]) -> tf.data.Dataset:
        """Convert `ds`; the lengths need only name `inputs` and `targets`.

        Raises:
          UserError: the examples have different numbers of choices, and `n_choices` is None.
        """
        if self._with_choices and _CHOICES in ds.element_spec:
            count = self._n_choices or ds.element_spec[_CHOICES].shape[0]
            if count is None:
                raise UserError("the examples have different numbers of answer choices; give n_choices")
            ds = seqio.trim_and_pad_dataset(ds, {_CHOICES: (count, task_feature_lengths["targets"])})
            return self._with_choices(ds, task_feature_lengths)
        return super().__call__(ds, {TASK_IDS: 1, **task_feature_lengths})

    def _convert_example(self, features: Mapping[str, tf.Tensor]) -> Mapping[str, tf.Tensor]:
        return {**super()._convert_example(features), TASK_IDS: features[TASK_IDS][0]}

    def get_model_feature_lengths(self, task_feature_lengths: Mapping[str, int]) -> Mapping[str, int]:
        """Return the length of each of the model's features in tokens; a task id has length 1."""
        return {**super().get_model_feature_lengths(task_feature_lengths), TASK_IDS: 1}


class _WithChoices(RoutedEncDecFeatureConverter):
    TASK_FEATURES: Mapping[str, Any] = {
        **RoutedEncDecFeatureConverter.TASK_FEATURES,
        _CHOICES: seqio.FeatureConverter.FeatureSpec(dtype=tf.int32, rank=2, sequence_dim=1),
        **{name: seqio.FeatureConverter.FeatureSpec(dtype=tf.int32, rank=0) for name in _NUMBERS},
    }
    MODEL_FEATURES: Mapping[str, Any] = {
        **RoutedEncDecFeatureConverter.MODEL_FEATURES,
        _CHOICES: seqio.FeatureConverter.FeatureSpec(dtype=tf.int32, rank=2, sequence_dim=1),
        **{name: seqio.FeatureConverter.FeatureSpec(dtype=tf.int32, rank=0) for name in _NUMBERS.values()},
    }

    def __call__(self, ds: tf.data.Dataset, task_feature_lengths: Mapping[str, int]) -> tf.data.Dataset:
        lengths = {_CHOICES: task_feature_lengths["targets"], **dict.fromkeys(_NUMBERS, 1)}
        return super().__call__(ds, {**lengths, **task_feature_lengths})

    def _pack_or_pad(self, ds: tf.data.Dataset, packed_lengths: Mapping[str, int]) -> tf.data.Dataset:
        # seqio pads along the first axis, which is the axis of choices here, and does not handle scalars.
        done = {_CHOICES, *_NUMBERS}
        return super()._pack_or_pad(ds, {k: v for k, v in packed_lengths.items() if k not in done})

    def _convert_example(self, features: Mapping[str, tf.Tensor]) -> Mapping[str, tf.Tensor]:
        numbers = {ours: features[theirs] for theirs, ours in _NUMBERS.items()}
        return {**super()._convert_example(features), _CHOICES: features[_CHOICES], **numbers}

    def get_model_feature_lengths(self, task_feature_lengths: Mapping[str, int]) -> Mapping[str, int]:
        lengths = super().get_model_feature_lengths(task_feature_lengths)
        length = task_feature_lengths[_CHOICES]
        return {**lengths, _CHOICES: length, **dict.fromkeys(_NUMBERS.values(), 1)}
