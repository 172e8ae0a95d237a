"""The tokens that ROUGE-L compares: English word stems, GPT-2's byte pairs, or words of any script.

The official evaluation of Super-NaturalInstructions (arXiv 2204.07705) has two tracks. Its English track
uses rouge-score's own tokens, the stems of runs of `[a-z0-9]`, which ignore letters of other scripts. Its
cross-lingual track uses the tokens of GPT-2, which are byte pairs.
"""

import functools
import itertools
import os
from collections.abc import Iterable
from typing import Literal

import regex
from etils import epath

from poly_jax.errors import UserError
from poly_jax.files.text_file import read_text

RougeTokens = Literal["auto", "english", "gpt2", "words"]
"""The tokens that a task's ROUGE-L compares. "auto" is "english" where these tokens cover the task's
references; elsewhere it is "gpt2" if GPT-2's merges are given, and else "words"."""

# How GPT-2 splits a text into words before it merges: contractions, letters, digits and other characters,
# each with the space before it (Radford et al., 2019).
_GPT2_WORDS = regex.compile(r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+")
# These scripts put no spaces between words, so their letters are compared.
_UNSPACED = r"\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}"
_WORDS = regex.compile(rf"[{_UNSPACED}]\p{{M}}*|(?:(?![{_UNSPACED}])[\p{{L}}\p{{M}}\p{{N}}])+|\S")
_LETTERS = regex.compile(r"[\p{L}\p{N}]")
_ENGLISH = regex.compile(r"[a-z0-9]")
_BLANK = "Ġ"


class WordTokens:
    """Words of any script (letters where a script puts no spaces between words), and other characters."""

    def tokenize(self, text: str) -> list[str]:
        """Return the tokens of a text as they are written."""
        return _WORDS.findall(text)


class Gpt2Tokens:
    """The byte pairs of GPT-2 without spaces, as the official cross-lingual evaluation compares them."""

    def __init__(self, merges: str | os.PathLike[str]) -> None:
        """Read GPT-2's own list of merges, `merges.txt` or `vocab.bpe`: one pair per line, best first.

        Raises:
          UserError: there is no such file, or it is not a list of merges.
        """
        lines = read_text(merges, advice="give GPT-2's merges.txt").splitlines()
        pairs = [tuple(line.split(" ")) for line in lines if line and not line.startswith("#version")]
        if not pairs or any(len(pair) != 2 for pair in pairs):
            raise UserError(f"{os.fspath(merges)} is not a list of merges, two symbols per line")
        self._ranks = {pair: rank for rank, pair in enumerate(pairs)}
        self._byte_pairs = functools.lru_cache(maxsize=1 << 16)(self._merge)

    def tokenize(self, text: str) -> list[str]:
        """Return the tokens of a text; a token that stands for a space alone is empty."""
        return [
            token.lstrip(_BLANK) for word in _GPT2_WORDS.findall(text) for token in self._byte_pairs(word)
        ]

    def _merge(self, word: str) -> tuple[str, ...]:
        symbols = [_byte_symbols()[byte] for byte in word.encode()]
        while len(symbols) > 1:
            pairs = set(itertools.pairwise(symbols))
            best = min(pairs, key=lambda pair: self._ranks.get(pair, len(self._ranks)))
            if best not in self._ranks:
                break
            merged, place = [], 0
            while place < len(symbols):
                joined = tuple(symbols[place : place + 2]) == best
                merged.append("".join(best) if joined else symbols[place])
                place += 1 + joined
            symbols = merged
        return tuple(symbols)


@functools.cache
def gpt2_tokens(merges: str) -> Gpt2Tokens:
    """Return GPT-2's tokenizer for a file of merges, which is read once."""
    return Gpt2Tokens(epath.Path(merges))


def english_sees(references: Iterable[str]) -> bool:
    """Whether the English tokens cover texts: at least half of the letters and digits are in `[a-z0-9]`."""
    text = "".join(references).lower()
    letters = len(_LETTERS.findall(text))
    return 2 * len(_ENGLISH.findall(text)) >= letters if letters else not text.strip()


@functools.cache
def _byte_symbols() -> tuple[str, ...]:
    """Return a visible character for each byte: its own in Latin-1 if that prints, else one past U+00FF."""
    printing = {*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), 256)}
    others = iter(range(256, 512))
    return tuple(chr(byte) if byte in printing else chr(next(others)) for byte in range(256))
