"""Prompts that describe a task in words: a word for each skill, in any order, joined by a plus sign."""

import hashlib
from collections.abc import Mapping
from typing import Literal

from poly_jax.tasks.skillbench.compositions import SLOTS, Task

Wording = Literal["described", "reworded"]

WORDS: Mapping[str, tuple[str, str]] = {
    "drop": ("drop", "omit"),
    "reverse": ("turn", "flip"),
    "rotate": ("roll", "spin"),
    "double": ("echo", "twin"),
    "shift": ("step", "move"),
    "mirror": ("swap", "pair"),
    "upper": ("upper", "raise"),
    "length": ("count", "size"),
}
"""Two words for each skill, by its name, which all tasks use."""

SEPARATOR = "+"
LONGEST_WORD = 6
"""Number of letters of the longest word, with its s."""
LONGEST_PROMPT = SLOTS * LONGEST_WORD + (SLOTS - 1) * len(SEPARATOR)


def words(skill: str, wording: Wording) -> tuple[str, ...]:
    """Return the words for a skill from `WORDS`, or with `reworded` the same words ending in s."""
    ending = "s" if wording == "reworded" else ""
    return tuple(f"{word}{ending}" for word in WORDS[skill])


def description(task: Task, wording: Wording = "described") -> str:
    """Return a text that describes the whole task: every word of every skill."""
    return " ".join(word for skill in _names(task) for word in words(skill, wording))


def prompt_in_words(task: Task, text: str, data_seed: int, wording: Wording) -> str:
    """Return the description that comes before one input string, such as `upper+omit`.

    The data seed, the skills and the string decide the order of the skills and the word for each of them. All
    orders and words are equally likely.
    """
    left = [words(name, wording) for name in _names(task)]
    # A hash and not a random generator, so that an example does not depend on how many others are drawn.
    seed = f"{data_seed} {task.skills} {text}"
    number = int.from_bytes(hashlib.sha256(seed.encode()).digest())
    chosen = []
    while left:
        number, place = divmod(number, len(left))
        choices = left.pop(place)
        number, which = divmod(number, len(choices))
        chosen.append(choices[which])
    return SEPARATOR.join(chosen)


def _names(task: Task) -> list[str]:
    return [task.inventory.skill_names[skill] for skill in task.skills]
