"""The seqio preprocessor that turns the texts of a row into tokens."""

from collections.abc import Mapping

from poly_jax.data.drawn_reference import DrawnReference
from poly_jax.data.encoded_text import encoded_choices, encoded_text
from poly_jax.data.quiet import seqio, tf


class Encoding(DrawnReference):
    """Encodes the input, a reference and the choices of an example of `FilesSource`.

    Each ends with the end of sequence, before which a text that is too long is cut.
    """

    encodes_many = True

    def __init__(self, vocabulary: seqio.Vocabulary) -> None:
        self._vocabulary = vocabulary

    def encoded(
        self, example: Mapping[str, tf.Tensor], reference: tf.Tensor, lengths: Mapping[str, int]
    ) -> dict[str, tf.Tensor]:
        """Make `inputs`, `targets` and their texts; with choices also `choices`, `label` and `example_id`."""
        longest = lengths.get("targets")
        encoded = {
            "inputs": encoded_text(example["inputs"], self._vocabulary, lengths.get("inputs")),
            "inputs_pretokenized": example["inputs"],
            "targets": encoded_text(reference, self._vocabulary, longest),
            "targets_pretokenized": reference,
        }
        if "choices" not in example:
            return encoded
        return {
            **encoded,
            "choices": encoded_choices(example["choices"], self._vocabulary, longest),
            "label": example["label"],
            "example_id": example["example_id"],
        }
