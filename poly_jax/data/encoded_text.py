"""Encodes the text of a feature, as the seqio preprocessors of the benchmarks need it."""

from poly_jax.data.quiet import seqio, tf


def encoded_text(
    text: tf.Tensor, vocabulary: seqio.Vocabulary, length: int | None = None, ends: bool = True
) -> tf.Tensor:
    """Return the tokens of a text, int32 [at most length].

    Args:
      text: a scalar text.
      vocabulary: vocabulary of the text; its `eos_id` ends the tokens.
      length: largest number of tokens; longer texts are cut before the end of sequence. None for any number.
      ends: whether the tokens end with the end of sequence.
    """
    return cut(tf.cast(vocabulary.encode_tf(text), tf.int32), vocabulary, length, ends)


def encoded_choices(texts: tf.Tensor, vocabulary: seqio.Vocabulary, length: int | None = None) -> tf.Tensor:
    """Return the tokens of answer choices, int32 [choices, length], each with its end, padded with 0.

    Args:
      texts: texts [choices], of which the static shape states the number; an empty text is an absent choice,
        whose tokens are all padding.
      vocabulary: vocabulary of the texts.
      length: number of tokens of a choice, to which longer ones are cut; None for the longest choice's.
    """
    choices = [
        encoded_text(texts[place], vocabulary, length)[: tf.where(texts[place] == "", 0, tf.int32.max)]
        for place in range(texts.shape[0])
    ]
    return tf.ragged.stack(choices).to_tensor(shape=(texts.shape[0], length))


def cut(
    tokens: tf.Tensor, vocabulary: seqio.Vocabulary, length: int | None = None, ends: bool = True
) -> tf.Tensor:
    """Cut tokens to a length, and add the end of sequence; see `encoded_text`."""
    end = [vocabulary.eos_id] if ends else []
    tokens = tokens if length is None else tokens[: length - len(end)]
    return tf.concat([tokens, tf.constant(end, tf.int32)], axis=0)
