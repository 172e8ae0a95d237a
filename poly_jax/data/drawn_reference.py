"""Examples with several right answers, one of which is drawn as the target each time."""

import abc
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from poly_jax.data.quiet import seqio, tf


def reference_columns(references: Sequence[Sequence[str]]) -> dict[str, Any]:
    """Return the columns of a dataset that `DrawnReference` reads.

    They are `references`, the texts of each example, padded with empty ones to one number, and
    `num_references`, int32, the number of each example's own.
    """
    # A power of 2, so that many tasks have columns of the same shape and are read through one graph.
    width = 1 << (max(len(texts) for texts in references) - 1).bit_length()
    return {
        "references": [[*texts, *[""] * (width - len(texts))] for texts in references],
        "num_references": tf.constant([len(texts) for texts in references], tf.int32),
    }


class DrawnReference(abc.ABC):
    """A seqio preprocessor that draws one of an example's references as the target.

    The reference is drawn anew each time an example is read; the same seed of the dataset gives the same
    draws. A program that reads the examples once, and draws batches from them later, uses
    `one_row_per_target`.
    """

    encodes_many: ClassVar[bool] = False
    """Whether `encoded` also takes many examples at once, which is some ten times as fast."""

    def __call__(
        self, dataset: tf.data.Dataset, sequence_length: Mapping[str, int] | None = None
    ) -> tf.data.Dataset:
        """Make one row per example, as `encoded` returns it."""

        @seqio.map_over_dataset(num_seeds=1)
        @tf.autograph.experimental.do_not_convert
        def encode(example: Mapping[str, tf.Tensor], seed: tf.Tensor) -> dict[str, tf.Tensor]:
            place = tf.random.stateless_uniform([], seed, 0, example["num_references"], tf.int32)
            return self._row(example, place, sequence_length)

        return encode(dataset)

    def one_row_per_target(
        self, dataset: tf.data.Dataset, sequence_length: Mapping[str, int] | None = None
    ) -> tf.data.Dataset:
        """Make one row per example and reference; rows of one example share its `example_id` (int32)."""

        @tf.autograph.experimental.do_not_convert
        def rows(number: tf.Tensor, example: Mapping[str, tf.Tensor]) -> tf.data.Dataset:
            @tf.autograph.experimental.do_not_convert
            def encode(place: tf.Tensor) -> dict[str, tf.Tensor]:
                row = self._row(example, place, sequence_length)
                return {**row, "example_id": tf.cast(number, tf.int32)}

            return tf.data.Dataset.from_tensor_slices(tf.range(example["num_references"])).map(encode)

        return dataset.enumerate().flat_map(rows)

    def many_rows_per_target(
        self, examples: Mapping[str, tf.Tensor], numbers: tf.Tensor, lengths: Mapping[str, int]
    ) -> tuple[dict[str, tf.Tensor], tf.Tensor]:
        """Make the rows of many examples that `one_row_per_target` makes of each, if it `encodes_many`.

        Args:
          examples: the fields of the examples, [examples, ...].
          numbers: place of each example in its source, int64 [examples].
          lengths: number of tokens of `inputs` and of `targets`.

        Returns:
          What `encoded` returns for all rows, with their `example_id`; and for each row the index of its
          example, int64 [rows].
        """
        counts = tf.cast(examples["num_references"], tf.int64)
        origins = tf.repeat(tf.range(tf.size(counts, tf.int64)), counts)
        places = tf.stack([origins, tf.ragged.range(counts).flat_values], axis=1)
        rows = {name: tf.gather(column, origins) for name, column in examples.items()}
        encoded = self.encoded(rows, tf.gather_nd(examples["references"], places), lengths)
        return {**encoded, "example_id": tf.cast(tf.gather(numbers, origins), tf.int32)}, origins

    def _row(
        self, example: Mapping[str, tf.Tensor], place: tf.Tensor, sequence_length: Mapping[str, int] | None
    ) -> dict[str, tf.Tensor]:
        references = example["references"][: example["num_references"]]
        encoded = self.encoded(example, references[place], sequence_length or {})
        return {"references": references, **encoded}

    @abc.abstractmethod
    def encoded(
        self, example: Mapping[str, tf.Tensor], reference: tf.Tensor, lengths: Mapping[str, int]
    ) -> dict[str, tf.Tensor]:
        """Encode an example with the reference that was drawn.

        Returns:
          `inputs` and `targets`, int32 [at most their length in `lengths`], their texts
          `inputs_pretokenized` and `targets_pretokenized`, and whatever else metrics need. If it
          `encodes_many`, each tensor may have a first axis of examples; then `inputs` and `targets` are
          ragged.
        """
