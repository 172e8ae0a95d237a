"""The latent skills of the embedded benchmark: small string operations, applied in a fixed order."""

import dataclasses
from collections.abc import Callable, Iterable

_LETTERS = "abcdefghij"
_DROPPED = "aei"
_NEXT = str.maketrans(_LETTERS, _LETTERS[1:] + _LETTERS[:1])
_MIRROR = str.maketrans(_LETTERS, _LETTERS[::-1])


def drop(text: str) -> str:
    """Delete the letters a, e and i."""
    return "".join(letter for letter in text if letter not in _DROPPED)


def reverse(text: str) -> str:
    """Reverse the order of the letters."""
    return text[::-1]


def rotate(text: str) -> str:
    """Move the first letter to the end."""
    return text[1:] + text[:1]


def double(text: str) -> str:
    """Repeat the last letter."""
    return text + text[-1:]


def shift(text: str) -> str:
    """Replace every letter of a-j by the next one, and j by a."""
    return text.translate(_NEXT)


def mirror(text: str) -> str:
    """Swap a with j, b with i, and so on."""
    return text.translate(_MIRROR)


def upper(text: str) -> str:
    """Write the letters as capitals."""
    return text.upper()


def length(text: str) -> str:
    """Put the number of letters in front, as one digit."""
    return f"{len(text)}{text}"


@dataclasses.dataclass(frozen=True)
class Inventory:
    """Skills in their order of application, and the strings they are meant for.

    Attributes:
        name: name of the inventory, which seeds the choices that are made once for it (split, task names).
        skills: the operations. A skill is identified by its index, and a set of skills is always applied in
            this order.
        letters: the letters of input strings; a string never repeats a letter.
        shortest: number of letters of the shortest input string.
        longest: number of letters of the longest input string.
        longest_target: number of bytes that no composition of at most three skills exceeds.
        accepts: predicate that says whether a string may be an input, e.g. because every skill changes it.
    """

    name: str
    skills: tuple[Callable[[str], str], ...]
    letters: str
    shortest: int
    longest: int
    longest_target: int
    accepts: Callable[[str], bool]

    def __post_init__(self):
        # A prompt names a skill by one digit.
        if not 1 <= len(self.skills) <= 10:
            raise ValueError(f"inventory {self.name!r} has {len(self.skills)} skills; it needs 1 to 10")

    @property
    def skill_names(self) -> tuple[str, ...]:
        """Names of the skills in their order, [skill]."""
        return tuple(skill.__name__ for skill in self.skills)

    def apply(self, skills: Iterable[int], text: str) -> str:
        """Apply a set of skills, given by their indices, in the inventory's order."""
        for skill in sorted(set(skills)):
            text = self.skills[skill](text)
        return text


def _every_skill_acts(text: str) -> bool:
    # With three distinct letters left after `drop`, `reverse` and `rotate` differ, whatever else a task does.
    kept = len(drop(text))
    return 3 <= kept < len(text)


LETTERS = Inventory(
    name="letters",
    skills=(drop, reverse, rotate, double, shift, mirror, upper, length),
    letters=_LETTERS,
    shortest=4,
    longest=7,
    longest_target=9,
    accepts=_every_skill_acts,
)
