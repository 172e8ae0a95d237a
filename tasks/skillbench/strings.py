"""Seeded random strings of distinct letters, which are the same on every NumPy version."""

from collections.abc import Callable, Sequence

import numpy as np

# The size is fixed: a larger number of strings then extends the list instead of redrawing it.
_BLOCK = 512


def raw_generator(seed: Sequence[int]) -> np.random.PCG64:
    """Return the bit generator of a seed, whose raw output NumPy promises never to change."""
    return np.random.PCG64(np.random.SeedSequence(seed))


def draw(
    letters: str,
    shortest: int,
    longest: int,
    count: int,
    seed: Sequence[int],
    accepts: Callable[[str], bool] | None = None,
) -> list[str]:
    """Draw `count` different strings that pass `accepts`; no string repeats a letter.

    Lengths are uniform between `shortest` and `longest` before `accepts` looks at the string.

    Raises:
        ValueError: there are too few such strings.
    """
    generator = raw_generator(seed)
    alphabet = np.frombuffer(letters.encode(), np.uint8)
    drawn: dict[str, None] = {}
    idle = 0
    while len(drawn) < count:
        raw = generator.random_raw(_BLOCK * (len(letters) + 1)).reshape(_BLOCK, -1)
        orders = alphabet[np.argsort(raw[:, 1:], axis=1)[:, :longest]]
        sizes = shortest + raw[:, 0] % np.uint64(longest - shortest + 1)
        before = len(drawn)
        for order, size in zip(orders, sizes.tolist(), strict=True):
            text = order[:size].tobytes().decode()
            if accepts is None or accepts(text):
                drawn[text] = None
        idle = idle + 1 if len(drawn) == before else 0
        if idle == 100:
            raise ValueError(f"only {before} of {count} different strings over {letters!r} were found")
    return list(drawn)[:count]
