"""The seqio preprocessor that turns the texts of an instance into inputs and targets."""

from collections.abc import Callable, Mapping

from poly_jax.data.quiet import seqio, tf
from poly_jax.tasks.super_natural_instructions.prompts import PromptForm, encode_prompt, encode_target

Example = dict[str, tf.Tensor]


class Encoding:
    """Writes the prompt of an example of `TaskFileSource` and draws one of its references as the target.

    The draw is fresh each time an example is read, and the same for the same seed of the dataset. One object
    serves all tasks, so that TensorFlow traces their common graph once.
    """

    def __init__(self, prompt: PromptForm, vocabulary: seqio.Vocabulary) -> None:
        self._prompt = prompt
        self._vocabulary = vocabulary
        self._traced: dict[tuple[int | None, int | None], Callable[[Example, tf.Tensor], Example]] = {}

    def __call__(
        self, dataset: tf.data.Dataset, sequence_length: Mapping[str, int] | None = None
    ) -> tf.data.Dataset:
        """Adds `inputs` and `targets`, each ended by the end of sequence, and their texts."""
        lengths = sequence_length or {}
        encode = self._encode(lengths.get("inputs"), lengths.get("targets"))

        @seqio.map_over_dataset(num_seeds=1)
        @tf.autograph.experimental.do_not_convert
        def encode_example(example: Example, seed: tf.Tensor) -> Example:
            references = example["references"][: example["num_references"]]
            return encode({**example, "references": references}, seed)

        return encode_example(dataset)

    def _encode(
        self, input_length: int | None, target_length: int | None
    ) -> Callable[[Example, tf.Tensor], Example]:
        def encode(example: Example, seed: tf.Tensor) -> Example:
            references = example["references"]
            drawn = tf.random.stateless_uniform([], seed, 0, tf.size(references), tf.int32)
            inputs, text = encode_prompt(example, self._prompt, self._vocabulary, input_length)
            return {
                "id": example["id"],
                "references": references,
                "inputs": inputs,
                "inputs_pretokenized": text,
                "targets": encode_target(references[drawn], self._vocabulary, target_length),
                "targets_pretokenized": references[drawn],
            }

        lengths = input_length, target_length
        if lengths not in self._traced:
            self._traced[lengths] = tf.function(encode, autograph=False)
        return self._traced[lengths]
