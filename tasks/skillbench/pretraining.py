"""The backbone's pretraining examples: skills named by their digits, in compositions that no task has."""

from collections.abc import Iterator, Sequence

import numpy as np

from poly_jax.tasks.skillbench import strings
from poly_jax.tasks.skillbench.compositions import NAME_LETTERS, SLOTS, Benchmark, SkillSet
from poly_jax.tasks.skillbench.examples import PLACEHOLDER, Example
from poly_jax.tasks.skillbench.skills import Inventory

COPY_WEIGHT = 8
SINGLE_WEIGHT = 3
LEFT_OVER_WEIGHT = 1


def pretraining_sets(benchmark: Benchmark) -> list[SkillSet]:
    """List the sets to draw from uniformly, each as often as its weight; the empty set means copy."""
    singles = [(skill,) for skill in range(len(benchmark.inventory.skills))]
    return [
        *[()] * COPY_WEIGHT,
        *singles * SINGLE_WEIGHT,
        *benchmark.left_over * LEFT_OVER_WEIGHT,
    ]


def pretraining_texts(
    inventory: Inventory, chosen: Sequence[SkillSet], seed: tuple[int, int, int]
) -> Iterator[str]:
    """Draw a string for each set of skills to change; for the empty set, it may have letters of names too."""
    copies = sum(not skills for skills in chosen)
    size = (inventory.shortest, inventory.longest)
    # (*seed, 0) would be the generator of the prompts again, because NumPy pads a short seed with zeros.
    to_copy = iter(strings.draw(inventory.letters + NAME_LETTERS, *size, copies, (*seed, 1)))
    changed = len(chosen) - copies
    to_change = iter(strings.draw(inventory.letters, *size, changed, (*seed, 2), inventory.accepts))
    for skills in chosen:
        yield next(to_change if skills else to_copy)


def pretraining_examples(benchmark: Benchmark, count: int, seed: tuple[int, int, int]) -> list[Example]:
    """Draw `count` (input, target) pairs.

    The slots hold the digits of the skills in any order and place. The remaining slots hold placeholders in
    one half of the examples and letters of task names in the other half. To the backbone, a name therefore
    means as little as a placeholder. Strings to copy also contain name letters: the backbone can still tell
    the letters of a name apart, and a shared adapter is able to read names.
    """
    inventory = benchmark.inventory
    sets = pretraining_sets(benchmark)
    raw = strings.raw_generator(seed).random_raw(count * (2 + 2 * SLOTS)).reshape(count, -1)
    which = (raw[:, 0] % np.uint64(len(sets))).tolist()
    blank = (raw[:, 1] >> np.uint64(63)).tolist()
    places = np.argsort(raw[:, 2 : 2 + SLOTS], axis=1).tolist()
    fillers = (raw[:, 2 + SLOTS :] % np.uint64(len(NAME_LETTERS))).tolist()
    chosen = [sets[index] for index in which]
    texts = pretraining_texts(inventory, chosen, seed)
    pairs = []
    for skills, text, is_blank, place, filler in zip(chosen, texts, blank, places, fillers, strict=True):
        marks = [PLACEHOLDER] * SLOTS if is_blank else [NAME_LETTERS[letter] for letter in filler]
        for skill, slot in zip(skills, place, strict=False):
            marks[slot] = str(skill)
        pairs.append((f"{''.join(marks)} {text}", inventory.apply(skills, text)))
    return pairs
