"""A SentencePiece vocabulary with added tokens, which it splits a text at as transformers' tokenizers do."""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from poly_jax.data.quiet import seqio, tf
from poly_jax.errors import UserError

# A character that no text contains; texts are split at it.
_CUT = "\U0010ffff"


class AddedTokensVocabulary(seqio.Vocabulary):
    """A vocabulary that first splits a text at its added tokens and encodes the text between them.

    Of the tokens that start first, the longest is taken, as in transformers. Every piece of text between
    tokens is encoded as if it stood alone. T5's own special tokens and its sentinels (`<extra_id_0>`) are
    split off too.
    """

    def __init__(self, pieces: seqio.SentencePieceVocabulary, added_tokens: Mapping[str, int]) -> None:
        """Adds tokens to a vocabulary.

        Args:
          pieces: the vocabulary of the text between the tokens.
          added_tokens: id of each token.

        Raises:
          UserError: a token is empty, its id is not a whole number of 0 or more, or two tokens have one id.
        """
        super().__init__()
        self._pieces = pieces
        self._added = dict(added_tokens)
        own = {pieces.tokenizer.id_to_piece(i).removeprefix("▁"): i for i in self._own_special_ids()}
        self._ids = own | self._added
        for token, number in self._added.items():
            if not isinstance(token, str) or not token:
                raise UserError(f"added_tokens has {token!r}; give each token as a text that is not empty")
            if isinstance(number, bool) or not isinstance(number, int) or number < 0:
                raise UserError(f"added_tokens has {number!r} as the id of {token!r}; give a whole number")
            other = next((t for t, i in self._ids.items() if i == number and t != token), None)
            if other is not None:
                raise UserError(f"added_tokens has the id {number} for {token!r} and for {other!r}")
        self._tokens = {number: token for token, number in self._ids.items()}
        longest_first = sorted(self._ids, key=lambda token: (-len(token), token))
        # RE2 and Python agree on these escapes.
        self._pattern = f"({'|'.join(re.escape(token) for token in longest_first)})"

    def _own_special_ids(self) -> Iterable[int]:
        """Ids of the padding, end and unknown tokens, and of the sentinels, which follow the pieces."""
        size = self._pieces.tokenizer.get_piece_size()
        return {0, self._pieces.eos_id, self._pieces.unk_id} | set(range(size - self._pieces.extra_ids, size))

    @property
    def added_tokens(self) -> dict[str, int]:
        """Id of each added token."""
        return dict(self._added)

    def piece(self, number: int) -> str:
        """Return the text of an id: an added token, or SentencePiece's piece; an unused id is unknown."""
        if number in self._tokens:
            return self._tokens[number]
        return self._pieces.tokenizer.id_to_piece(self._known(number))

    @property
    def bos_id(self) -> int | None:
        """The id that begins a text; see `eos_id`."""
        return self._pieces.bos_id

    @property
    def eos_id(self) -> int | None:
        """The id that ends a text, as SentencePiece's model states it."""
        return self._pieces.eos_id

    @property
    def unk_id(self) -> int | None:
        """The id of unknown characters, as SentencePiece's model states it."""
        return self._pieces.unk_id

    @property
    def _base_vocab_size(self) -> int:
        return max(self._pieces.vocab_size, *(number + 1 for number in self._ids.values()))

    def _encode(self, s: str) -> Sequence[int]:
        ids: list[int] = []
        for part in re.split(self._pattern, s):
            ids += [self._ids[part]] if part in self._ids else self._pieces.encode(part)
        return ids

    def _decode(self, ids: Sequence[int]) -> str:
        """Join runs of pieces and the tokens between them, without adding spaces, as transformers does."""
        text, run = "", []
        for number in [*ids, None]:
            if number is not None and number not in self._tokens:
                run.append(int(number))
                continue
            if run:
                starts_word = self._pieces.tokenizer.id_to_piece(self._known(run[0])).startswith("▁")
                space = " " if text and starts_word else ""
                text, run = text + space + self._pieces.decode(run), []
            if number is not None and self._tokens[number] in self._added:
                text += self._tokens[number]
        return text

    def _known(self, number: int) -> int:
        return number if number < self._pieces.vocab_size else self._pieces.unk_id

    def _encode_tf(self, s: Any) -> Any:
        if s.shape.rank != 0:
            kind = tf.RaggedTensorSpec([None], tf.int32, ragged_rank=0)
            return tf.map_fn(self._encode_tf, s, fn_output_signature=kind)
        parts = tf.strings.split(tf.strings.regex_replace(s, self._pattern, rf"{_CUT}\1{_CUT}"), _CUT)
        same = tf.equal(parts[:, None], tf.constant(list(self._ids))[None, :])
        is_token = tf.reduce_any(same, axis=1)
        numbers = tf.gather(tf.constant(list(self._ids.values()), tf.int32), tf.argmax(same, axis=1))
        tokens = tf.RaggedTensor.from_row_lengths(
            tf.boolean_mask(numbers, is_token), tf.cast(is_token, tf.int64)
        )
        between = self._pieces.encode_tf(tf.where(is_token, "", parts))
        return tf.concat([tokens, between], axis=1).flat_values

    def _decode_tf(self, ids: Any) -> Any:
        def decode(row: Any) -> bytes:
            return self._decode(row.tolist()).encode()

        if ids.shape.rank == 1:
            text = tf.numpy_function(decode, [ids], tf.string)
            text.set_shape([])
            return text
        return tf.map_fn(self._decode_tf, ids, fn_output_signature=tf.string)

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, AddedTokensVocabulary)
            and self._pieces == other._pieces
            and self._added == other._added
        )

    __hash__ = None  # type: ignore[assignment]
