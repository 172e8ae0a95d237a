"""Reads single tensors out of safetensors files and says which file is broken."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import ml_dtypes  # noqa: F401  safetensors looks up bfloat16 among numpy's dtypes, where this import puts it
import numpy as np
from safetensors import SafetensorError, safe_open

from poly_jax.errors import UserError


def tensor_shapes(path: str | os.PathLike) -> dict[str, tuple[int, ...]]:
    """The shapes of the tensors in a file by name, from its header alone."""
    with _opened(path) as f:
        return {name: tuple(f.get_slice(name).get_shape()) for name in f.keys()}  # noqa: SIM118  not a mapping


def text_metadata(path: str | os.PathLike) -> dict[str, str]:
    """The text metadata of a file; empty where it has none."""
    with _opened(path) as f:
        return f.metadata() or {}


def read_tensor(path: str | os.PathLike, name: str) -> np.ndarray:
    """One tensor, copied out of the file.

    The file is opened anew for each tensor: it is memory-mapped, and pages that have been read count as this
    process's memory until it is closed.
    """
    with _opened(path) as f:
        return f.get_tensor(name)


@contextmanager
def _opened(path: str | os.PathLike) -> Iterator[Any]:
    if "://" in os.fspath(path):
        raise UserError(f"{path} is not a local file; copy it to one")
    try:
        with safe_open(os.fspath(path), framework="np") as f:
            yield f
    except FileNotFoundError:
        raise UserError(f"{path} is missing; copy it there") from None
    except (SafetensorError, OSError, TypeError) as e:
        raise UserError(f"{path} cannot be read as safetensors ({e}); copy it again") from e
