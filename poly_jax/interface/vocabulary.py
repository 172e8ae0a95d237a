"""The vocabulary of a loaded model, which the user gives or which is beside the checkpoint."""

import os
import pathlib
from typing import Any

from poly_jax.data import vocabularies
from poly_jax.data.quiet import seqio
from poly_jax.data.tokenizer import check_room, find_tokenizer
from poly_jax.errors import UserError
from poly_jax.model.config import T5Config
from poly_jax.training.vocabulary_room import check_eos

_BYTES = "bytes"


def beside(backbone: str, config: T5Config) -> seqio.Vocabulary | None:
    """Read the vocabulary beside a backbone, with its added tokens; None if there is no vocabulary.

    Raises:
      UserError: the vocabulary does not fit the embedding, or `find_tokenizer` refuses it.
    """
    found = find_tokenizer(pathlib.Path(backbone), config.vocab_size) if "://" not in backbone else None
    if found is None:
        return None
    if found.model is None:
        return seqio.ByteVocabulary(extra_ids=found.extra_ids)
    return vocabularies.sentencepiece(os.fspath(found.model), found.extra_ids, found.added_tokens)


def feature(vocabulary: Any, config: T5Config) -> seqio.Feature:
    """Make the seqio feature that encodes and decodes the texts of a T5.

    Args:
      vocabulary: "bytes", the path of a SentencePiece model (with T5's 100 extra ids), or a seqio vocabulary.
      config: configuration of the T5.

    Raises:
      UserError: the vocabulary is None, or does not fit the model.
    """
    if vocabulary is None:
        raise UserError(
            "the vocabulary is not known; load the model with vocabulary='bytes' or the path of a"
            " SentencePiece model"
        )
    if vocabulary == _BYTES:
        vocabulary = vocabularies.byte()
    elif isinstance(vocabulary, str | os.PathLike):
        vocabulary = vocabularies.sentencepiece(os.fspath(vocabulary))
    check_room("the vocabulary", vocabulary.vocab_size, config.vocab_size)
    check_eos("the vocabulary", vocabulary, config)
    return seqio.Feature(vocabulary, add_eos=True)
