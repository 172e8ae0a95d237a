"""The seqio preprocessor that turns the texts of a shown example into tokens."""

from collections.abc import Mapping

from poly_jax.data.encoded_text import encoded_choices, encoded_text
from poly_jax.data.quiet import seqio, tf


class Encoding:
    """Encodes input, target and choices of an example of `HeldOutSource`, each with an end of sequence.

    With `end_inputs` False, the input has none, as in P3 and T0. Texts that are too long are cut before the
    end of sequence. `choices` becomes [choices, length of the targets] (of the longest choice where no length
    is given), padded with 0; an absent choice, an empty text, is all padding.
    """

    def __init__(self, vocabulary: seqio.Vocabulary, end_inputs: bool = True) -> None:
        self._vocabulary = vocabulary
        self._end_inputs = end_inputs

    def __call__(
        self, dataset: tf.data.Dataset, sequence_length: Mapping[str, int] | None = None
    ) -> tf.data.Dataset:
        """Add `inputs`, `targets` and `choices` as int32 tokens, and the texts of the first two."""
        lengths = sequence_length or {}
        longest = lengths.get("targets")

        @tf.autograph.experimental.do_not_convert
        def encode(example: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
            return {
                **example,
                "inputs": encoded_text(
                    example["inputs"], self._vocabulary, lengths.get("inputs"), self._end_inputs
                ),
                "inputs_pretokenized": example["inputs"],
                "targets": encoded_text(example["targets"], self._vocabulary, longest),
                "targets_pretokenized": example["targets"],
                "choices": encoded_choices(example["choices"], self._vocabulary, longest),
            }

        return dataset.map(encode, num_parallel_calls=tf.data.AUTOTUNE)
