"""Tokens that a Hugging Face folder adds to its SentencePiece model, and a check against tokenizer.json.

transformers reads added tokens from four files. The ids here are the same as in transformers 5, which takes
the vocabulary and the added tokens from tokenizer.json and builds the rest of a T5's tokenizer itself.
"""

import base64
import dataclasses
import json
import pathlib
import re
from collections.abc import Iterator, Mapping
from typing import Any

import sentencepiece
from sentencepiece import sentencepiece_model_pb2

from poly_jax.errors import UserError
from poly_jax.files.json_file import read_json
from poly_jax.weights.tree import listing

TOKENIZER = "tokenizer.json"
CONFIG = "tokenizer_config.json"
ADDED = "added_tokens.json"
SPECIAL = "special_tokens_map.json"

_SENTINEL = re.compile(r"<extra_id_(\d+)>")
# Steps of tokenizer.json that have the same effect as SentencePiece's own normalisation.
_NORMALIZERS = {"Precompiled", "Strip", "Replace", "Nmt", "NFKC"}
_PRE_TOKENIZERS = {"WhitespaceSplit", "Metaspace"}
# Number of special ids of a byte vocabulary: padding, end of sequence and unknown characters.
_BYTE_SPECIALS = 3
_SCORE_TOLERANCE = 1e-4


@dataclasses.dataclass(frozen=True)
class _Token:
    text: str
    number: int
    normalized: bool
    single_word: bool
    file: pathlib.Path


@dataclasses.dataclass(frozen=True)
class Pieces:
    """A SentencePiece model and the sentinels that T5 puts after its pieces.

    Attributes:
      processor: the loaded model, without sentinels.
      extra_ids: number of sentinels.
      file: path of the model, for messages.
    """

    processor: sentencepiece.SentencePieceProcessor
    extra_ids: int
    file: pathlib.Path

    @property
    def size(self) -> int:
        """Number of pieces and sentinels."""
        return self.processor.get_piece_size() + self.extra_ids

    def id(self, token: str) -> int | None:
        """Return the id of a piece or a sentinel; None for any other text."""
        number = self.processor.piece_to_id(token)
        if self.processor.id_to_piece(number) == token:
            return number
        sentinel = _SENTINEL.fullmatch(token)
        if sentinel and int(sentinel[1]) < self.extra_ids:
            return self.size - 1 - int(sentinel[1])
        # mT5's sentinels are pieces of its SentencePiece model.
        number = self.processor.piece_to_id(f"▁{token}")
        return number if self.processor.id_to_piece(number) == f"▁{token}" and sentinel else None

    def is_special(self, number: int) -> bool:
        """Whether an id stands for padding, end, unknown or a sentinel, rather than a piece of text."""
        return number >= self.processor.get_piece_size() or not self._is_text(number)

    def _is_text(self, number: int) -> bool:
        processor = self.processor
        return not (
            processor.is_control(number) or processor.is_unknown(number) or processor.is_unused(number)
        ) and not _SENTINEL.fullmatch(processor.id_to_piece(number).removeprefix("▁"))


def added_tokens(folder: pathlib.Path, pieces: Pieces) -> dict[str, int]:
    """Read the ids of the tokens that were added to a T5's vocabulary, without its own special tokens.

    Args:
      folder: path of a Hugging Face folder.
      pieces: the vocabulary of its SentencePiece model.

    Raises:
      UserError: a file is broken, the files disagree, or they change ids in a way that is not supported.
    """
    found: dict[str, _Token] = {}
    for token in _stated(folder):
        other = found.setdefault(token.text, token)
        if other.number != token.number:
            raise UserError(
                f"{token.file} gives the token {token.text!r} the id {token.number}, and {other.file} gives"
                f" it {other.number}; keep one"
            )
    new = {}
    for token in found.values():
        own = pieces.id(token.text)
        if own == token.number and pieces.is_special(own):
            continue
        if own not in (None, token.number) or (own is None and token.number < pieces.size):
            has = f"gives it {own}" if own is not None else "has another piece there"
            raise UserError(
                f"{token.file} gives the token {token.text!r} the id {token.number}, and {pieces.file} {has};"
                " give the SentencePiece model that the tokenizer was made from"
            )
        new[token.text] = token
    _check_supported(new, found, pieces)
    _check_named(folder, found, pieces)
    if (folder / TOKENIZER).exists():
        _check_same_vocabulary(
            folder / TOKENIZER, pieces, {text: token.number for text, token in found.items()}
        )
    return {text: token.number for text, token in sorted(new.items(), key=lambda item: item[1].number)}


def read_added_tokens(file: pathlib.Path) -> dict[str, int]:
    """Read the id of each token from an added_tokens.json.

    Raises:
      UserError: the file is broken or holds something else.
    """
    return {token.text: token.number for token in _of_added(file)}


def refuse_added_tokens(folder: pathlib.Path) -> None:
    """Raise a UserError with the tokens that a folder adds to a byte vocabulary, if there are any."""
    new = [t.text for t in _stated(folder) if t.number >= _BYTE_SPECIALS and not _SENTINEL.fullmatch(t.text)]
    if new:
        raise UserError(
            f"{folder} adds tokens to the vocabulary of bytes ({listing(map(repr, new))}), which is not"
            " supported; load the model with vocabulary='bytes' to do without"
        )


def _stated(folder: pathlib.Path) -> Iterator[_Token]:
    """Yield the tokens for which a folder's files state an id, the most detailed descriptions first."""
    if (folder / TOKENIZER).exists():
        file = folder / TOKENIZER
        for entry in _list(read_json(file).get("added_tokens"), file, "added_tokens"):
            yield _token(entry, _dict(entry, file, "added_tokens").get("id"), file)
    if (folder / CONFIG).exists():
        file = folder / CONFIG
        decoder = _dict(read_json(file).get("added_tokens_decoder") or {}, file, "added_tokens_decoder")
        for number, entry in decoder.items():
            yield _token(entry, int(number) if number.isdecimal() else number, file)
    if (folder / ADDED).exists():
        yield from _of_added(folder / ADDED)


def _of_added(file: pathlib.Path) -> Iterator[_Token]:
    for text, number in read_json(file).items():
        yield _token({"content": text}, number, file)


def _token(entry: Any, number: Any, file: pathlib.Path) -> _Token:
    entry = _dict(entry, file, "an added token")
    text = entry.get("content")
    if not isinstance(text, str) or not text or isinstance(number, bool) or not isinstance(number, int):
        raise UserError(f"{file} has an added token {text!r} with the id {number!r}; copy it again")
    normalized = entry.get("normalized", not entry.get("special", False))
    return _Token(text, number, bool(normalized), bool(entry.get("single_word", False)), file)


def _check_supported(new: Mapping[str, _Token], found: Mapping[str, _Token], pieces: Pieces) -> None:
    """Refuse tokens that transformers would find in another way than by splitting the text at them."""
    for token in new.values():
        if token.single_word:
            raise UserError(
                f"{token.file}: the added token {token.text!r} matches whole words only (single_word),"
                " which is not supported; add it with single_word=False"
            )
        if not token.normalized:
            continue
        seen = pieces.processor.normalize(token.text).replace("▁", " ").strip(" ")
        if seen != token.text:
            raise UserError(
                f"{token.file}: the added token {token.text!r} is looked for in the normalised text, as"
                f" {seen!r}; add it with normalized=False"
            )
        for other in found.values():
            if not other.normalized and _starts_before(token.text, other.text):
                raise UserError(
                    f"{token.file}: the added tokens {token.text!r} and {other.text!r} overlap, and"
                    " transformers looks for the second one first; add both with normalized=False"
                )


def _starts_before(first: str, second: str) -> bool:
    """Whether an occurrence of `first` can overlap one of `second` and start before it or at it."""
    tails = (first[i:] for i in range(1, len(first)))
    return second in first or any(second.startswith(tail) for tail in tails)


def _check_named(folder: pathlib.Path, found: Mapping[str, _Token], pieces: Pieces) -> None:
    """Check the special tokens that two of the files name without their ids."""
    roles = {
        "pad_token": 0,
        "eos_token": pieces.processor.eos_id(),
        "unk_token": pieces.processor.unk_id(),
    }
    for file in (folder / SPECIAL, folder / CONFIG):
        if not file.exists():
            continue
        content = read_json(file)
        for role, number in roles.items():
            for text in _texts(content.get(role), file, role):
                own = found[text].number if text in found else pieces.id(text)
                if own != number:
                    raise UserError(
                        f"{file}: {role} is {text!r}, with the id {own}, and {pieces.file} has {number} for"
                        " it; this is not supported"
                    )
        lists = ("additional_special_tokens", "extra_special_tokens")
        named = [text for key in lists for text in _texts(content.get(key), file, key)]
        if lost := [text for text in named if text not in found and pieces.id(text) is None]:
            raise UserError(
                f"{file} names special tokens without an id in {TOKENIZER}, {ADDED} or {CONFIG}"
                f" ({listing(map(repr, lost))}); save the tokenizer again with transformers"
            )


def _texts(value: Any, file: pathlib.Path, key: str) -> list[str]:
    """Return the texts of one or several special tokens, each a text or an object with a `content`."""
    if value is None:
        return []
    if isinstance(value, dict) and "content" not in value:
        value = list(value.values())
    texts = [
        entry.get("content") if isinstance(entry, dict) else entry
        for entry in (value if isinstance(value, list) else [value])
    ]
    if not all(isinstance(text, str) for text in texts):
        raise UserError(f"{file}: {key} is not a token or a list of tokens; copy it again")
    return [str(text) for text in texts]


def _check_same_vocabulary(file: pathlib.Path, pieces: Pieces, added: Mapping[str, int]) -> None:
    """Refuse a tokenizer.json that splits texts differently from the SentencePiece model beside it."""
    content = read_json(file)
    model = _dict(content.get("model"), file, "model")
    proto = sentencepiece_model_pb2.ModelProto()  # type: ignore[attr-defined]
    proto.ParseFromString(pieces.processor.serialized_model_proto())
    differs = f"{file} and {pieces.file.name} differ"
    advice = "keep the one that the model was trained with"
    kind = {1: "Unigram", 2: "BPE"}.get(proto.trainer_spec.model_type)
    if model.get("type", kind) != kind:
        raise UserError(f"{differs}: {model.get('type')!r} is not {kind!r}; {advice}")
    vocabulary = model.get("vocab")
    if kind == "Unigram":
        listed = _list(vocabulary, file, "vocab")
        if not all(isinstance(e, list) and len(e) == 2 and isinstance(e[1], int | float) for e in listed):
            raise UserError(f"{file}: vocab is not a list of pieces with their scores; copy it again")
        own = [(piece.piece, piece.score) for piece in proto.pieces]
        for number, (piece, score) in enumerate(listed):
            same = number < len(own) and piece == own[number][0]
            if same and abs(score - own[number][1]) <= _SCORE_TOLERANCE:
                continue
            if number < len(own) or (pieces.id(piece) != number and added.get(piece) != number):
                there = f"{own[number][0]!r} ({own[number][1]:g})" if number < len(own) else "nothing"
                raise UserError(f"{differs}: the id {number} is {piece!r} ({score:g}) and {there}; {advice}")
        if len(listed) < len(own):
            raise UserError(f"{differs}: they have {len(listed)} and {len(own)} pieces; {advice}")
    _check_steps(content, proto, file, pieces)


def _check_steps(content: Mapping[str, Any], proto: Any, file: pathlib.Path, pieces: Pieces) -> None:
    """Refuse steps of a tokenizer.json that SentencePiece does not take before or after its vocabulary."""
    steps = [(step, _NORMALIZERS) for step in _steps(content.get("normalizer"), "normalizers")]
    steps += [(step, _PRE_TOKENIZERS) for step in _steps(content.get("pre_tokenizer"), "pretokenizers")]
    for step, known in steps:
        if step.get("type") not in known:
            raise UserError(
                f"{file} and {pieces.file.name} differ: the step {json.dumps(step.get('type'))} is not in"
                " SentencePiece's model; take the tokenizer that the model was trained with"
            )
        charsmap = step.get("precompiled_charsmap")
        if (
            charsmap is not None
            and charsmap != base64.b64encode(proto.normalizer_spec.precompiled_charsmap).decode()
        ):
            raise UserError(
                f"{file} and {pieces.file.name} normalise texts in different ways (precompiled_charsmap);"
                " take the tokenizer that the model was trained with"
            )
    template = content.get("post_processor")
    if isinstance(template, dict) and template.get("type") == "TemplateProcessing":
        single = _steps({"steps": template.get("single")}, "steps")
        names = [next(iter(part), None) for part in single]
        if names not in (["Sequence"], ["Sequence", "SpecialToken"]):
            raise UserError(
                f"{file} adds tokens to a text (post_processor) other than the one at its end, which is not"
                " supported; put these tokens into the texts"
            )


def _steps(step: Any, key: str) -> list[dict[str, Any]]:
    """Return the steps of a sequence, or the single step as a list."""
    if step is None:
        return []
    parts = step.get(key, [step]) if isinstance(step, dict) else [step]
    parts = parts if isinstance(parts, list) else [parts]
    return [part if isinstance(part, dict) else {"type": part} for part in parts if part is not None]


def _list(value: Any, file: pathlib.Path, key: str) -> list[Any]:
    if not isinstance(value, list | None):
        raise UserError(f"{file}: {key} is not a list; copy it again")
    return value or []


def _dict(value: Any, file: pathlib.Path, key: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise UserError(f"{file}: {key} is not an object; copy it again")
    return value
