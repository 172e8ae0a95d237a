"""The seqio preprocessor that turns the texts of a row into inputs and targets."""

from collections.abc import Mapping

from poly_jax.data.drawn_reference import DrawnReference
from poly_jax.data.encoded_text import encoded_text
from poly_jax.data.quiet import seqio, tf


class Encoding(DrawnReference):
    """Writes the prompt and the target of an example of `SampleSource`.

    The prompt is " [<task>] <input>", or " [<task>] <description>. <input>" where the task has a description;
    the target is " <reference>". T5's vocabulary ignores the first blank, a byte vocabulary does not. Texts
    that are too long are cut before the end of sequence.
    """

    encodes_many = True

    def __init__(self, vocabulary: seqio.Vocabulary) -> None:
        self._vocabulary = vocabulary

    def encoded(
        self, example: Mapping[str, tf.Tensor], reference: tf.Tensor, lengths: Mapping[str, int]
    ) -> dict[str, tf.Tensor]:
        """Make `inputs` and `targets`, which end with the end of sequence, and their texts."""
        description = example["description"]
        said = tf.where(description == "", "", tf.strings.join([description, ". "]))
        prompt = tf.strings.join([" [", example["task"], "] ", said, example["input"]])
        target = tf.strings.join([" ", reference])
        return {
            "inputs": encoded_text(prompt, self._vocabulary, lengths.get("inputs")),
            "inputs_pretokenized": prompt,
            "targets": encoded_text(target, self._vocabulary, lengths.get("targets")),
            "targets_pretokenized": target,
        }
