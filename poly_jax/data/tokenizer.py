"""Finds the vocabulary that belongs to a backbone, and checks that the embedding has a row for every id."""

import dataclasses
import json
import pathlib
import shutil
from collections.abc import Mapping
from typing import Any

import sentencepiece

from poly_jax.data.hugging_face_tokens import (
    ADDED,
    CONFIG,
    SPECIAL,
    TOKENIZER,
    Pieces,
    added_tokens,
    read_added_tokens,
    refuse_added_tokens,
)
from poly_jax.errors import UserError
from poly_jax.files.json_file import read_json

SENTENCEPIECE = "spiece.model"
_FILES = (SENTENCEPIECE, CONFIG, TOKENIZER, SPECIAL, ADDED)
_T5_EXTRA_IDS = 100


@dataclasses.dataclass(frozen=True)
class Tokenizer:
    """A T5's vocabulary.

    Attributes:
      model: path of the SentencePiece model file; None for a byte vocabulary.
      extra_ids: number of sentinels after the pieces.
      added_tokens: id of each token that was added to the pieces and sentinels.
    """

    model: pathlib.Path | None
    extra_ids: int = 0
    added_tokens: Mapping[str, int] = dataclasses.field(default_factory=dict)

    def gin_lines(self, model: pathlib.Path) -> list[str]:
        """Return the gin bindings of the vocabulary, with the SentencePiece model at the path `model`."""
        if self.model is None:
            return ["# Its vocabulary is bytes: @vocabularies.byte()."]
        lines = [
            f"vocabularies.sentencepiece.path = {str(model.absolute())!r}",
            f"vocabularies.sentencepiece.extra_ids = {self.extra_ids}",
        ]
        if self.added_tokens:
            lines.append(f"vocabularies.sentencepiece.added_tokens = {dict(self.added_tokens)!r}")
        return lines


def find_tokenizer(backbone: pathlib.Path, vocab_size: int) -> Tokenizer | None:
    """Find the vocabulary in a backbone's folder, or beside its file, where `poly-jax import` writes it.

    Args:
      backbone: path of a Hugging Face folder, or of a backbone's folder or file in this project's format.
      vocab_size: number of rows of the model's embedding.

    Returns:
      The vocabulary; None if there is no vocabulary that seqio can read.

    Raises:
      UserError: the vocabulary has more ids than the embedding has rows, its files are broken or disagree, or
        some tokens would get other ids than in transformers.
    """
    config: dict[str, Any] = {}
    model, added = (backbone.with_suffix(f".{name}") for name in (SENTENCEPIECE, ADDED))
    folder = backbone if backbone.is_dir() else None
    if folder is not None:
        model = backbone / SENTENCEPIECE
        config = read_json(backbone / CONFIG) if (backbone / CONFIG).exists() else {}
    extra_ids = config.get("extra_ids")
    if isinstance(extra_ids, bool) or not isinstance(extra_ids, int | None) or (extra_ids or 0) < 0:
        raise UserError(f"{backbone / CONFIG}: extra_ids is {extra_ids!r}, not a number; copy it again")
    if model.exists():
        processor = _load(model)
        size = processor.get_piece_size()
        if extra_ids is None:
            # transformers' T5 has 100 sentinels by default; mT5's sentinels are among its pieces.
            extra_ids = _T5_EXTRA_IDS if size + _T5_EXTRA_IDS <= vocab_size else 0
        check_room(model, size + extra_ids, vocab_size)
        tokens = {}
        if folder is not None:
            tokens = added_tokens(folder, Pieces(processor, extra_ids, model))
        elif added.exists():
            tokens = read_added_tokens(added)
        check_room(f"{backbone} with its added tokens", max(tokens.values(), default=-1) + 1, vocab_size)
        return Tokenizer(model, extra_ids, tokens)
    if folder is not None and (folder / TOKENIZER).exists():
        check_room(folder / TOKENIZER, _highest_id(folder / TOKENIZER) + 1, vocab_size)
    if folder is None or "ByT5" not in str(config.get("tokenizer_class")):
        return None
    refuse_added_tokens(folder)
    return Tokenizer(None, extra_ids or 0)


def write_beside(tokenizer: Tokenizer, backbone: pathlib.Path) -> pathlib.Path:
    """Write a SentencePiece vocabulary where `find_tokenizer` finds it, unless its model is there already.

    Args:
      tokenizer: the vocabulary, whose model file is copied.
      backbone: path of a backbone's folder or file in this project's format.

    Returns:
      Path of the model.
    """

    def place(name: str) -> pathlib.Path:
        return backbone / name if backbone.is_dir() else backbone.with_suffix(f".{name}")

    model = place(SENTENCEPIECE)
    if tokenizer.model is not None and not model.exists():
        shutil.copyfile(tokenizer.model, model)
        if tokenizer.added_tokens:
            place(ADDED).write_text(json.dumps(dict(tokenizer.added_tokens), ensure_ascii=False) + "\n")
    return model


def copy_tokenizer(source: pathlib.Path, target: pathlib.Path) -> bool:
    """Copy the tokenizer's files from one folder to another unchanged; return whether there are any."""
    files = [source / name for name in _FILES if (source / name).is_file()]
    for file in files:
        shutil.copyfile(file, target / file.name)
    return bool(files)


def _load(model: pathlib.Path) -> sentencepiece.SentencePieceProcessor:
    try:
        return sentencepiece.SentencePieceProcessor(model_file=str(model))
    except (RuntimeError, OSError) as e:
        raise UserError(f"{model} is not a SentencePiece model ({e}); copy it again") from e


def check_room(source: object, n_ids: int, vocab_size: int) -> None:
    """Raise a UserError where a vocabulary has ids that the embedding has no rows for."""
    if n_ids > vocab_size:
        raise UserError(
            f"{source} has ids 0 to {n_ids - 1}, and the embedding has {vocab_size} rows; give the "
            "vocabulary that the model was trained with"
        )


def _highest_id(path: pathlib.Path) -> int:
    content = read_json(path)
    try:
        vocabulary = content.get("model", {}).get("vocab", [])
        ids = list(vocabulary.values()) if isinstance(vocabulary, dict) else [len(vocabulary) - 1]
        return max([*ids, *(token["id"] for token in content.get("added_tokens", []))], default=-1)
    except (AttributeError, KeyError, TypeError) as e:
        raise UserError(f"{path} is not a tokenizer of the tokenizers library; copy it again") from e
