"""What ROUGE-L compares: English word stems, GPT-2's byte pairs, or words of any script.

The official evaluation of Super-NaturalInstructions (arXiv 2204.07705) has two tracks. Its English track
takes rouge-score's own tokens, the stems of runs of `[a-z0-9]`, and sees no letter of another script. Its
cross-lingual track takes the tokens of GPT-2, which are byte pairs.
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
"""What a task's ROUGE-L compares. "auto" takes "english" where that sees the task's references; else "gpt2"
where its merges are given, and "words" where they are not."""

# GPT-2's split into words, before any merge: contractions, letters, digits and other signs, each with the
# blank before it (Radford et al., 2019).
_GPT2_WORDS = regex.compile(r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+")
# These scripts put no blanks between words, so that their letters are compared.
_UNSPACED = r"\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}"
_WORDS = regex.compile(rf"[{_UNSPACED}]\p{{M}}*|(?:(?![{_UNSPACED}])[\p{{L}}\p{{M}}\p{{N}}])+|\S")
_LETTERS = regex.compile(r"[\p{L}\p{N}]")
_ENGLISH = regex.compile(r"[a-z0-9]")
_BLANK = "Ġ"


class WordTokens:
    """Words of any script, letters where a script has no blanks between words, and single other signs."""

    def tokenize(self, text: str) -> list[str]:
        """The tokens of a text, as they are written."""
        return _WORDS.findall(text)


class Gpt2Tokens:
    """The byte pairs of GPT-2, as the official cross-lingual evaluation compares them: without blanks."""

    def __init__(self, merges: str | os.PathLike[str]) -> None:
        """For GPT-2's own list of merges, the file `merges.txt` or `vocab.bpe`: a pair per line, best first.

        Raises:
          UserError: there is no such file, or it holds something else.
        """
        lines = read_text(merges, advice="give GPT-2's merges.txt").splitlines()
        pairs = [tuple(line.split(" ")) for line in lines if line and not line.startswith("#version")]
        if not pairs or any(len(pair) != 2 for pair in pairs):
            raise UserError(f"{os.fspath(merges)} is not a list of merges, two symbols per line")
        self._ranks = {pair: rank for rank, pair in enumerate(pairs)}
        self._byte_pairs = functools.lru_cache(maxsize=1 << 16)(self._merge)

    def tokenize(self, text: str) -> list[str]:
        """The tokens of a text; one that stands for a blank alone is empty."""
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
    """The tokens of GPT-2 for a file of merges, which is read once."""
    return Gpt2Tokens(epath.Path(merges))


def english_sees(references: Iterable[str]) -> bool:
    """Whether the English tokens see texts: at least half of their letters and digits are of `[a-z0-9]`."""
    text = "".join(references).lower()
    letters = len(_LETTERS.findall(text))
    return 2 * len(_ENGLISH.findall(text)) >= letters if letters else not text.strip()


@functools.cache
def _byte_symbols() -> tuple[str, ...]:
    """A visible character for every byte: itself where it prints in Latin-1, else the next from U+0100 on."""
    printing = {*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), 256)}
    others = iter(range(256, 512))
    return tuple(chr(byte) if byte in printing else chr(next(others)) for byte in range(256))
