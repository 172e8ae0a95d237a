"""Operations on the tokens of one text, int32 [tokens], or of many, a tf.RaggedTensor [n, tokens]."""

from collections.abc import Sequence
from typing import Any

from poly_jax.data.quiet import seqio, tf


def vocabulary_tokens(text: tf.Tensor, vocabulary: seqio.Vocabulary) -> tf.Tensor:
    """Return a vocabulary's tokens of a scalar text or of texts [n], without an end of sequence.

    seqio's vocabularies encode scalar texts. Those that programs here use most encode many at once as well.
    """
    if text.shape.rank == 0 or isinstance(vocabulary, seqio.SentencePieceVocabulary):
        return tf.cast(vocabulary.encode_tf(text), tf.int32)
    if type(vocabulary) is seqio.ByteVocabulary:
        # Its encoder takes texts of one length.
        characters = tf.strings.bytes_split(text)
        return tf.ragged.map_flat_values(lambda one: tf.reshape(vocabulary.encode_tf(one), [-1]), characters)

    def tokens(one: tf.Tensor) -> tf.Tensor:
        return tf.cast(vocabulary.encode_tf(one), tf.int32)

    return tf.map_fn(tokens, text, fn_output_signature=tf.RaggedTensorSpec([None], tf.int32, ragged_rank=0))


def sizes(tokens: tf.Tensor) -> tf.Tensor:
    """Return the number of tokens, int64 [] or [n]."""
    return tokens.row_lengths() if isinstance(tokens, tf.RaggedTensor) else tf.size(tokens, tf.int64)


def beginning(tokens: tf.Tensor, count: tf.Tensor | int) -> tf.Tensor:
    """Return at most `count` tokens, a number of 0 or more for all texts or for each of them."""
    if not isinstance(tokens, tf.RaggedTensor):
        return tokens[:count]
    lengths = tokens.row_lengths()
    kept = tf.minimum(lengths, tf.cast(count, tf.int64))
    inside = tf.ragged.range(lengths).flat_values < tf.repeat(kept, lengths)
    return tf.RaggedTensor.from_row_lengths(tf.boolean_mask(tokens.flat_values, inside), kept)


def joined(parts: Sequence[Any]) -> tf.Tensor:
    """Join tokens one after another; where some are of many texts, the others are the same for each text."""
    many = [part for part in parts if isinstance(part, tf.RaggedTensor)]
    if not many:
        return tf.concat([tf.convert_to_tensor(part, tf.int32) for part in parts], axis=0)
    count = many[0].nrows()
    return tf.concat(
        [
            part
            if isinstance(part, tf.RaggedTensor)
            else tf.tile(tf.convert_to_tensor(part, tf.int32)[None], [count, 1])
            for part in parts
        ],
        axis=1,
    )
