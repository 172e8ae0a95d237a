"""Encodes the text of a feature, as the seqio preprocessors of the benchmarks need it."""

from poly_jax.data.quiet import seqio, tf
from poly_jax.data.token_rows import beginning, joined, vocabulary_tokens


def encoded_text(
    text: tf.Tensor, vocabulary: seqio.Vocabulary, length: int | None = None, ends: bool = True
) -> tf.Tensor:
    """Return the tokens of a text, int32 [at most length], or of each of many texts.

    Args:
      text: a scalar text; or texts [n], whose tokens are a tf.RaggedTensor [n, at most length].
      vocabulary: vocabulary of the text; its `eos_id` ends the tokens.
      length: largest number of tokens; longer texts are cut before the end of sequence. None for any number.
      ends: whether the tokens end with the end of sequence.
    """
    return cut(vocabulary_tokens(text, vocabulary), vocabulary, length, ends)


def encoded_choices(texts: tf.Tensor, vocabulary: seqio.Vocabulary, length: int | None = None) -> tf.Tensor:
    """Return the tokens of answer choices, int32 [choices, length], each with its end, padded with 0.

    Args:
      texts: texts [choices], or [n, choices] for many examples, of which the static shape states the number
        of choices; an empty text is an absent choice, whose tokens are all padding.
      vocabulary: vocabulary of the texts.
      length: number of tokens of a choice, to which longer ones are cut; None for the longest choice's.
    """
    if texts.shape.rank == 2:
        flat = tf.reshape(texts, [-1])
        tokens = encoded_text(flat, vocabulary, length).to_tensor(shape=(None, length))
        present = tf.where(flat[:, None] == "", 0, tokens)
        return tf.reshape(present, [-1, texts.shape[1], tf.shape(tokens)[1]])
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
    return joined([tokens if length is None else beginning(tokens, length - len(end)), end])
