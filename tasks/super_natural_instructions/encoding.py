"""The seqio preprocessor that turns the texts of an instance into inputs and targets."""

from collections.abc import Mapping

from poly_jax.data.drawn_reference import DrawnReference
from poly_jax.data.encoded_text import encoded_text
from poly_jax.data.quiet import seqio, tf
from poly_jax.tasks.super_natural_instructions.prompts import PromptForm, encode_prompt


class Encoding(DrawnReference):
    """Writes the prompt of an example of `TaskFileSource`; the target is a reference as it is."""

    encodes_many = True

    def __init__(self, prompt: PromptForm, vocabulary: seqio.Vocabulary) -> None:
        self._prompt = prompt
        self._vocabulary = vocabulary

    def encoded(
        self, example: Mapping[str, tf.Tensor], reference: tf.Tensor, lengths: Mapping[str, int]
    ) -> dict[str, tf.Tensor]:
        """Make `inputs` and `targets`, which end with the end of sequence, their texts, and the `id`."""
        inputs, prompt = encode_prompt(example, self._prompt, self._vocabulary, lengths.get("inputs"))
        return {
            "id": example["id"],
            "inputs": inputs,
            "inputs_pretokenized": prompt,
            "targets": encoded_text(reference, self._vocabulary, lengths.get("targets")),
            "targets_pretokenized": reference,
        }
