"""The meaning of a job's exit codes to whatever started it: which ones call for another start.

poly-jax exits with 42 after it was told to stop and has saved its state, with 1 after an error in the
input and with 2 after wrong usage. The shell and Kubernetes add 126 to 128 for a program that cannot be
started, and 128 + N for a process that signal N ended.
"""

from typing import Final

FINISHED: Final = 0
PREEMPTED: Final = 42
HOPELESS: Final = (1, 2, 126, 127, 128, 130)
"""Codes after which another start would fail again, or which a user caused (130 is Ctrl-C)."""
RESTARTED: Final = (PREEMPTED, 134, 137, 139, 143)
"""Codes for a tool that wants to know on which to restart: preempted, aborted (JAX's runtime aborts a process
that loses its coordinator), killed, crashed, told to stop before poly-jax listened."""


def calls_for_restart(code: int) -> bool:
    """Return whether a job that ended with this exit code should be started again."""
    return code != FINISHED and code not in HOPELESS
