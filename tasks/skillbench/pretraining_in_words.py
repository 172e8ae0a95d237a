"""More pretraining examples, with prompts as long as descriptions: digits of skills among random letters."""

import string

import numpy as np

from poly_jax.tasks.skillbench import strings
from poly_jax.tasks.skillbench.compositions import SLOTS, Benchmark
from poly_jax.tasks.skillbench.descriptions import LONGEST_WORD, SEPARATOR, WORDS, words
from poly_jax.tasks.skillbench.examples import Example
from poly_jax.tasks.skillbench.pretraining import pretraining_sets, pretraining_texts

SHORTEST_WORD = 3
_MEANINGFUL = {word for skill in WORDS for word in (*words(skill, "described"), *words(skill, "reworded"))}


def pretraining_examples_in_words(
    benchmark: Benchmark, count: int, seed: tuple[int, int, int]
) -> list[Example]:
    """Draw `count` (input, target) pairs.

    A prompt is one to three words of random letters, joined as in a description, and at least as many as
    there are skills. The digit of each skill takes the place of a letter of a word of its own. The sets of
    skills are the same as in `pretraining_examples`. No word of a description occurs, so that the backbone
    learns where a description ends and nothing of what its words mean.
    """
    inventory = benchmark.inventory
    sets = pretraining_sets(benchmark)
    per_word = 3 + LONGEST_WORD
    raw = strings.raw_generator(seed).random_raw(count * (2 + SLOTS * (1 + per_word))).reshape(count, -1)
    which = (raw[:, 0] % np.uint64(len(sets))).tolist()
    extra = raw[:, 1].tolist()
    orders = raw[:, 2 : 2 + SLOTS].argsort(axis=1).tolist()
    drawn = raw[:, 2 + SLOTS :].reshape(count, SLOTS, per_word).tolist()
    chosen = [sets[index] for index in which]
    texts = pretraining_texts(inventory, chosen, seed)
    pairs = []
    for skills, text, more, order, numbers in zip(chosen, texts, extra, orders, drawn, strict=True):
        fewest = max(len(skills), 1)
        n_words = fewest + more % (SLOTS - fewest + 1)
        marks: list[int | None] = [*skills, *[None] * (n_words - len(skills))]
        placed = [place for place in order if place < n_words]
        prompt = [_word(marks[place], numbers[place]) for place in placed]
        pairs.append((f"{SEPARATOR.join(prompt)} {text}", inventory.apply(skills, text)))
    return pairs


def _word(skill: int | None, numbers: list[int]) -> str:
    """A word of random letters, in which the digit of a skill takes the place of one letter."""
    size, place, change, *letters = numbers
    word = [
        string.ascii_lowercase[n % 26]
        for n in letters[: SHORTEST_WORD + size % (LONGEST_WORD - SHORTEST_WORD + 1)]
    ]
    if skill is not None:
        word[place % len(word)] = str(skill)
    elif "".join(word) in _MEANINGFUL:
        # No word of a description contains a q.
        word[change % len(word)] = "q"
    return "".join(word)
