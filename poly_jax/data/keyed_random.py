"""Random numbers that are functions of a key and a counter, so that none has to be drawn before another."""

import hashlib

import numpy as np
from jaxtyping import Float, Int, UInt64

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def random_key(*parts: object) -> int:
    """Return a 64-bit key for a seed and names; equal parts give equal keys on every machine."""
    text = "\n".join(map(str, parts))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")


def random_bits(key: UInt64[np.ndarray, "..."], counter: Int[np.ndarray, "..."]) -> UInt64[np.ndarray, "..."]:
    """Return 64 random bits for each key and counter, which are broadcast.

    The function is the output of SplitMix64 (Steele, Lea and Flood, "Fast splittable pseudorandom number
    generators", OOPSLA 2014) whose state is `key + counter x golden ratio`, mixed twice.
    """
    with np.errstate(over="ignore"):
        return _mixed(_mixed(key + counter.astype(np.uint64) * _GOLDEN) + _GOLDEN)


def uniform(key: UInt64[np.ndarray, "*n"], counter: Int[np.ndarray, "*n"]) -> Float[np.ndarray, "*n"]:
    """Return a float64 in [0, 1) for each key and counter."""
    return (random_bits(key, counter) >> np.uint64(11)) * 2.0**-53


def permutations(keys: UInt64[np.ndarray, "keys"], size: int) -> Int[np.ndarray, "keys size"]:
    """Return a random order of 0 to size - 1 for each key."""
    return np.argsort(random_bits(keys[:, None], np.arange(size)), axis=1, kind="stable")


def _mixed(state: UInt64[np.ndarray, "*n"]) -> UInt64[np.ndarray, "*n"]:
    state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return state ^ (state >> np.uint64(31))
