"""The vocabulary that belongs to a backbone: which it is, and whether the embedding has room for it."""

import dataclasses
import pathlib
import shutil
from typing import Any

import sentencepiece

from poly_jax.errors import UserError
from poly_jax.files.json_file import read_json

SENTENCEPIECE = "spiece.model"
CONFIG = "tokenizer_config.json"
_FILES = (SENTENCEPIECE, CONFIG, "tokenizer.json", "special_tokens_map.json", "added_tokens.json")
_T5_EXTRA_IDS = 100


@dataclasses.dataclass(frozen=True)
class Tokenizer:
    """A T5's vocabulary.

    Attributes:
      model: SentencePiece's model file; None for one of bytes.
      extra_ids: sentinels after the pieces.
    """

    model: pathlib.Path | None
    extra_ids: int = 0

    def gin_lines(self, model: pathlib.Path) -> list[str]:
        """Bindings of the vocabulary, with SentencePiece's model at the path `model`."""
        if self.model is None:
            return ["# Its vocabulary is bytes: @vocabularies.byte()."]
        return [
            f"vocabularies.sentencepiece.path = {str(model.absolute())!r}",
            f"vocabularies.sentencepiece.extra_ids = {self.extra_ids}",
        ]


def find_tokenizer(backbone: pathlib.Path, vocab_size: int) -> Tokenizer | None:
    """The vocabulary in the folder of a backbone, or beside its file as `poly-jax import` leaves it.

    Args:
      backbone: a Hugging Face folder, or this project's folder or file.
      vocab_size: rows of the model's embedding.

    Returns:
      The vocabulary; None if there is none that seqio can read.

    Raises:
      UserError: the vocabulary has more ids than the embedding has rows, or its file is broken.
    """
    config: dict[str, Any] = {}
    model = backbone.with_suffix(f".{SENTENCEPIECE}")
    if backbone.is_dir():
        model = backbone / SENTENCEPIECE
        config = read_json(backbone / CONFIG) if (backbone / CONFIG).exists() else {}
    extra_ids = config.get("extra_ids")
    if not isinstance(extra_ids, int | None):
        raise UserError(f"{backbone / CONFIG}: extra_ids is {extra_ids!r}, not a number; copy it again")
    if model.exists():
        pieces = count_pieces(model)
        if extra_ids is None:
            # transformers' T5 has 100 unless told; mT5 counts its own among the pieces.
            extra_ids = _T5_EXTRA_IDS if pieces + _T5_EXTRA_IDS <= vocab_size else 0
        check_room(model, pieces + extra_ids, vocab_size)
        return Tokenizer(model, extra_ids)
    if (backbone / "tokenizer.json").exists():
        check_room(backbone / "tokenizer.json", _highest_id(backbone / "tokenizer.json") + 1, vocab_size)
    return Tokenizer(None, extra_ids or 0) if "ByT5" in str(config.get("tokenizer_class")) else None


def copy_tokenizer(source: pathlib.Path, target: pathlib.Path) -> bool:
    """Copies the tokenizer's files from one folder to another as they are; whether there are any."""
    files = [source / name for name in _FILES if (source / name).is_file()]
    for file in files:
        shutil.copyfile(file, target / file.name)
    return bool(files)


def count_pieces(model: pathlib.Path) -> int:
    """Pieces of a SentencePiece model.

    Raises:
      UserError: it is none.
    """
    try:
        return sentencepiece.SentencePieceProcessor(model_file=str(model)).get_piece_size()
    except (RuntimeError, OSError) as e:
        raise UserError(f"{model} is not a SentencePiece model ({e}); copy it again") from e


def check_room(source: object, n_ids: int, vocab_size: int) -> None:
    """Raises a UserError where a vocabulary has ids that the embedding has no rows for."""
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
