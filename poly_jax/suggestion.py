"""Suggests what a user may have meant by a name that is not known."""

import difflib
from collections.abc import Callable, Iterable, Sequence

_MOST = 2


def close_names(name: str, known: Iterable[str]) -> list[str]:
    """The known names that are close to a name, from the closest on, upper and lower case being alike."""
    by_lower = {candidate.lower(): candidate for candidate in known}
    return [by_lower[match] for match in difflib.get_close_matches(name.lower(), by_lower, n=_MOST)]


def nearest_names(name: str, known: Iterable[str], count: int) -> list[str]:
    """The known names that are most like a name, however little that is, from the closest on."""
    by_lower = {candidate.lower(): candidate for candidate in known}
    matches = difflib.get_close_matches(name.lower(), by_lower, n=count, cutoff=0.0)
    return [by_lower[match] for match in matches]


def did_you_mean(names: Sequence[str], shown: Callable[[str], str] = repr) -> str:
    """The question `did you mean 'a' or 'b'?` for an error message; "" where there is no name to suggest.

    Args:
      names: the names to suggest, such as `close_names` finds.
      shown: form of a name in the question.
    """
    return f"did you mean {' or '.join(map(shown, names))}?" if names else ""
