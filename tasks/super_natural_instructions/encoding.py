"""The seqio preprocessor that turns the texts of an instance into inputs and targets."""

from collections.abc import Mapping

from poly_jax.data.quiet import seqio, tf
from poly_jax.tasks.super_natural_instructions.prompts import PromptForm, encode_prompt, encode_target


class Encoding:
    """Writes the prompt of an example of `TaskFileSource` and draws one of its references as the target.

    The draw is fresh each time an example is read, and the same for the same seed of the dataset.
    """

    def __init__(self, prompt: PromptForm, vocabulary: seqio.Vocabulary) -> None:
        self._prompt = prompt
        self._vocabulary = vocabulary

    def __call__(
        self, dataset: tf.data.Dataset, sequence_length: Mapping[str, int] | None = None
    ) -> tf.data.Dataset:
        """Gives `inputs` and `targets`, each ended by the end of sequence, their texts, and `references`."""
        lengths = sequence_length or {}

        @seqio.map_over_dataset(num_seeds=1)
        @tf.autograph.experimental.do_not_convert
        def encode(example: Mapping[str, tf.Tensor], seed: tf.Tensor) -> dict[str, tf.Tensor]:
            references = example["references"][: example["num_references"]]
            drawn = references[tf.random.stateless_uniform([], seed, 0, example["num_references"], tf.int32)]
            inputs, prompt = encode_prompt(example, self._prompt, self._vocabulary, lengths.get("inputs"))
            return {
                "id": example["id"],
                "references": references,
                "inputs": inputs,
                "inputs_pretokenized": prompt,
                "targets": encode_target(drawn, self._vocabulary, lengths.get("targets")),
                "targets_pretokenized": drawn,
            }

        return encode(dataset)
