"""Texts and tokens as a terminal can show them."""

from collections.abc import Sequence

from poly_jax.data.added_tokens import AddedTokensVocabulary
from poly_jax.data.quiet import seqio

_SPECIAL_BYTES = ("<pad>", "</s>", "<unk>")
_BLANK = "␣"


def token_texts(vocabulary: seqio.Vocabulary, ids: Sequence[int]) -> list[str]:
    """Return the text of each token: SentencePiece's piece ("▁the"), a byte, or what the vocabulary decodes.

    A blank is written as "␣". Bytes and characters that cannot be printed are written as in Python ("\\xc3").
    """
    return [_text(vocabulary, int(number)).replace(" ", _BLANK) for number in ids]


def printable(text: str) -> str:
    """Return a text in which characters that would steer a terminal are written as in Python ("\\x1b")."""
    return "".join(each if each.isprintable() else ascii(each)[1:-1] for each in text)


def _text(vocabulary: seqio.Vocabulary, number: int) -> str:
    if isinstance(vocabulary, seqio.ByteVocabulary):
        return _byte(number)
    if isinstance(vocabulary, AddedTokensVocabulary):
        return vocabulary.piece(number)
    if isinstance(vocabulary, seqio.SentencePieceVocabulary):
        known = number < vocabulary.vocab_size
        return vocabulary.tokenizer.id_to_piece(number if known else vocabulary.unk_id)
    return printable(vocabulary.decode([number]))


def _byte(number: int) -> str:
    if number < len(_SPECIAL_BYTES):
        return _SPECIAL_BYTES[number]
    value = number - len(_SPECIAL_BYTES)
    if value >= 256:
        return f"<extra_id_{value - 256}>"
    return chr(value) if 32 <= value < 127 else f"\\x{value:02x}"
