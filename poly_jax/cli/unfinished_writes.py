"""Keeps the tracebacks of a checkpoint's other files out of the output where the checkpoint has failed."""

import sys
from typing import Any


def hide_unfinished_writes() -> None:
    """Leave out the tracebacks that TensorStore prints where a checkpoint has failed.

    Orbax closes its event loop at the first error of a file, which the program then reports. TensorStore
    tells the loop about each other file, finds it closed, and hands that error to `sys.unraisablehook`.
    """
    shown = sys.unraisablehook

    def hook(unraisable: Any) -> None:
        if str(unraisable.exc_value) != "Event loop is closed":
            shown(unraisable)

    sys.unraisablehook = hook
