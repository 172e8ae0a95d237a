"""The seqio preprocessor that turns the texts of a row into inputs and targets."""

from collections.abc import Mapping

from poly_jax.data.quiet import seqio, tf


class Encoding:
    """Writes the prompt of an example of `SampleSource` and draws one of its references as the target.

    The prompt is " [<task>] <input>", or " [<task>] <description>. <input>" where the task has a description;
    the target is " <reference>". T5's vocabulary ignores the first blank, a byte vocabulary does not. Texts
    that are too long are cut before the end of sequence.

    The reference is drawn anew each time an example is read; the same seed of the dataset gives the same
    draws. A program that reads the examples once, and draws batches from them later, uses
    `one_row_per_target`.
    """

    def __init__(self, vocabulary: seqio.Vocabulary) -> None:
        self._vocabulary = vocabulary

    def __call__(
        self, dataset: tf.data.Dataset, sequence_length: Mapping[str, int] | None = None
    ) -> tf.data.Dataset:
        """Make `inputs` and `targets`, which end with the end of sequence, their texts, and `references`.

        Both are int32 [at most their length in `sequence_length`].
        """

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
        description = example["description"]
        said = tf.where(description == "", "", tf.strings.join([description, ". "]))
        prompt = tf.strings.join([" [", example["task"], "] ", said, example["input"]])
        target = tf.strings.join([" ", references[place]])
        return {
            "references": references,
            "inputs": self._tokens(prompt, lengths.get("inputs")),
            "inputs_pretokenized": prompt,
            "targets": self._tokens(target, lengths.get("targets")),
            "targets_pretokenized": target,
        }

    def _tokens(self, text: tf.Tensor, length: int | None) -> tf.Tensor:
        tokens = tf.cast(self._vocabulary.encode_tf(text), tf.int32)
        tokens = tokens if length is None else tokens[: length - 1]
        return tf.concat([tokens, [self._vocabulary.eos_id]], axis=0)
