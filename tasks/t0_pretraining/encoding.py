"""The seqio preprocessor that turns the texts of a prompted row into tokens."""

from collections.abc import Mapping

from poly_jax.data.encoded_text import encoded_text
from poly_jax.data.quiet import seqio, tf


class Encoding:
    """Encodes `inputs` and `targets`, which are cut before their end of sequence where they are too long.

    Args:
      vocabulary: vocabulary of both.
      end_inputs: whether the inputs end with an end of sequence, as the targets always do.
    """

    def __init__(self, vocabulary: seqio.Vocabulary, end_inputs: bool) -> None:
        self._vocabulary = vocabulary
        self._ends = {"inputs": end_inputs, "targets": True}

    def __call__(
        self, dataset: tf.data.Dataset, sequence_length: Mapping[str, int] | None = None
    ) -> tf.data.Dataset:
        """Add `inputs` and `targets` as int32 [at most their length], and their texts."""
        lengths = sequence_length or {}

        @tf.autograph.experimental.do_not_convert
        def encode(example: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
            encoded = dict(example)
            for name, ends in self._ends.items():
                encoded[f"{name}_pretokenized"] = example[name]
                encoded[name] = encoded_text(example[name], self._vocabulary, lengths.get(name), ends)
            return encoded

        return dataset.map(encode, num_parallel_calls=tf.data.AUTOTUNE)
