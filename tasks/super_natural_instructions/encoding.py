"""The seqio preprocessor that turns the texts of an instance into inputs and targets."""

from collections.abc import Mapping

from poly_jax.data.quiet import seqio, tf
from poly_jax.tasks.super_natural_instructions.prompts import PromptForm, encode_prompt, encode_target


class Encoding:
    """Writes the prompt of an example of `TaskFileSource` and draws one of its references as the target.

    The reference is drawn anew each time an example is read; the same seed of the dataset gives the same
    draws. A program that reads the examples once, and draws batches from them later, uses
    `one_row_per_target`.
    """

    def __init__(self, prompt: PromptForm, vocabulary: seqio.Vocabulary) -> None:
        self._prompt = prompt
        self._vocabulary = vocabulary

    def __call__(
        self, dataset: tf.data.Dataset, sequence_length: Mapping[str, int] | None = None
    ) -> tf.data.Dataset:
        """Make `inputs` and `targets`, which end with the end of sequence, their texts, and `references`."""

        @seqio.map_over_dataset(num_seeds=1)
        @tf.autograph.experimental.do_not_convert
        def encode(example: Mapping[str, tf.Tensor], seed: tf.Tensor) -> dict[str, tf.Tensor]:
            place = tf.random.stateless_uniform([], seed, 0, example["num_references"], tf.int32)
            return self._encoded(example, place, sequence_length)

        return encode(dataset)

    def one_row_per_target(
        self, dataset: tf.data.Dataset, sequence_length: Mapping[str, int] | None = None
    ) -> tf.data.Dataset:
        """Make one row per example and reference; rows of one example share its `example_id` (int32)."""

        @tf.autograph.experimental.do_not_convert
        def rows(number: tf.Tensor, example: Mapping[str, tf.Tensor]) -> tf.data.Dataset:
            @tf.autograph.experimental.do_not_convert
            def encode(place: tf.Tensor) -> dict[str, tf.Tensor]:
                encoded = self._encoded(example, place, sequence_length)
                return {**encoded, "example_id": tf.cast(number, tf.int32)}

            return tf.data.Dataset.from_tensor_slices(tf.range(example["num_references"])).map(encode)

        return dataset.enumerate().flat_map(rows)

    def _encoded(
        self, example: Mapping[str, tf.Tensor], place: tf.Tensor, sequence_length: Mapping[str, int] | None
    ) -> dict[str, tf.Tensor]:
        lengths = sequence_length or {}
        references = example["references"][: example["num_references"]]
        inputs, prompt = encode_prompt(example, self._prompt, self._vocabulary, lengths.get("inputs"))
        return {
            "id": example["id"],
            "references": references,
            "inputs": inputs,
            "inputs_pretokenized": prompt,
            "targets": encode_target(references[place], self._vocabulary, lengths.get("targets")),
            "targets_pretokenized": references[place],
        }
