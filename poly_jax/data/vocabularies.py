"""The vocabularies that gin files bind: SentencePiece, as T5 has, and bytes."""

import os
from collections.abc import Mapping
from typing import Any

from etils import epath

from poly_jax.data.added_tokens import AddedTokensVocabulary
from poly_jax.data.quiet import seqio, tf
from poly_jax.errors import UserError


class _SharedSentencePiece(seqio.SentencePieceVocabulary):
    """A SentencePiece vocabulary whose TensorFlow tokenizer is built once.

    seqio builds one per use in a dataset: about 12 MB and 60 ms each, which a mixture of hundreds of tasks
    multiplies.
    """

    _tf_tokenizer: Any = None

    @property
    def tf_tokenizer(self) -> Any:
        if self._tf_tokenizer is None:
            # The tokenizer is built outside the graph of the first dataset, and all datasets can use it.
            with tf.init_scope():
                self._tf_tokenizer = super().tf_tokenizer
        return self._tf_tokenizer

    def __getstate__(self) -> dict[str, Any]:
        state = super().__getstate__()
        state.pop("_tf_tokenizer", None)
        return state


def sentencepiece(
    path: str, extra_ids: int = 100, added_tokens: Mapping[str, int] | None = None
) -> seqio.Vocabulary:
    """Make a SentencePiece vocabulary with `extra_ids` sentinels after its pieces, as T5 has.

    Args:
      path: local or remote (gs://) path of the model file.
      extra_ids: number of sentinels.
      added_tokens: id of each token that was added to the pieces and sentinels; texts are split at these
        tokens (see `AddedTokensVocabulary`).

    Raises:
      UserError: there is no SentencePiece model at the path, or an added token or its id is invalid.
    """
    if not epath.Path(path).is_file():
        raise UserError(
            f"no SentencePiece model at {os.fspath(path)!r}; T5's is at "
            "gs://t5-data/vocabs/cc_all.32000/sentencepiece.model"
        )
    vocabulary = _SharedSentencePiece(os.fspath(path), extra_ids=extra_ids)
    try:
        vocabulary.load_model()
    except Exception as error:
        raise UserError(f"{os.fspath(path)!r} is not a SentencePiece model: {error}") from error
    return AddedTokensVocabulary(vocabulary, added_tokens) if added_tokens else vocabulary


def byte() -> seqio.ByteVocabulary:
    """Make the vocabulary of UTF-8 bytes: 3 special ids, then 256 bytes, and no sentinels."""
    return seqio.ByteVocabulary(extra_ids=0)
