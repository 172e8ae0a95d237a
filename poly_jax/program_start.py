"""The moment at which the command line started, so that a run counts the start of the program as its own."""

import time

# `poly_jax.cli` imports this module first, before the libraries that take seconds to import.
_IMPORTED = time.time()
_CLOCKS_APART = time.time() - time.monotonic()
_started: float | None = None


def clock() -> float:
    """Return the Unix time in seconds, without the jumps of a clock that is set anew."""
    return _CLOCKS_APART + time.monotonic()


def mark() -> None:
    """Say that this process is a program of the command line, which began when it imported this module."""
    global _started
    _started = _IMPORTED


def claim() -> float:
    """Return when the work that begins here began, as Unix time in seconds.

    The first work of a program began when the program started. Later work, and work of other processes,
    begins now.
    """
    global _started
    began = clock() if _started is None else _started
    _started = None
    return began
