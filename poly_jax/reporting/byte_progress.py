"""A bar on the terminal that shows how much of a checkpoint has been read or written."""

from contextlib import AbstractContextManager

from rich import progress as bars

from poly_jax.reporting.step_progress import step_progress
from poly_jax.weights.safetensors_writer import Advance


def byte_progress(doing: str, total: int) -> AbstractContextManager[Advance]:
    """Shows a bar; inside, call what this yields with the bytes of every step, see `step_progress`.

    Args:
      doing: the work that goes on, such as "writing".
      total: bytes of all steps.
    """
    return step_progress(doing, total, bars.DownloadColumn(), bars.TransferSpeedColumn())
