"""Reads single tensors out of safetensors files and says which file is broken."""

import functools
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import ml_dtypes
import numpy as np
from safetensors import SafetensorError, safe_open

from poly_jax.errors import UserError
from poly_jax.weights.tensors import Index, Tensor

# safetensors looks up bfloat16 among numpy's dtypes, where importing ml_dtypes registers it.
DTYPES = {
    "F64": np.dtype(np.float64),
    "F32": np.dtype(np.float32),
    "F16": np.dtype(np.float16),
    "BF16": np.dtype(ml_dtypes.bfloat16),
    "I64": np.dtype(np.int64),
    "I32": np.dtype(np.int32),
    "I16": np.dtype(np.int16),
    "I8": np.dtype(np.int8),
    "U8": np.dtype(np.uint8),
    "BOOL": np.dtype(np.bool_),
}


def open_tensors(path: str | os.PathLike) -> dict[str, Tensor]:
    """Open the tensors of a file by name, reading only its header.

    Raises:
      UserError: the file is missing or broken, or holds numbers of an unknown kind.
    """
    tensors = {}
    with _opened(path) as f:
        for name in f.keys():  # noqa: SIM118  not a mapping
            header = f.get_slice(name)
            kind = header.get_dtype()
            if kind not in DTYPES:
                raise UserError(f"{path}: {name} is stored as {kind}; save it as one of {', '.join(DTYPES)}")
            tensors[name] = Tensor(
                tuple(header.get_shape()),
                DTYPES[kind],
                functools.partial(read_tensor, path, name),
                functools.partial(_read_part, path, name),
            )
    return tensors


def text_metadata(path: str | os.PathLike) -> dict[str, str]:
    """Read the text metadata of a file; empty where it has none."""
    with _opened(path) as f:
        return f.metadata() or {}


def read_tensor(path: str | os.PathLike, name: str) -> np.ndarray:
    """Read a copy of one tensor from a file.

    The file is opened again for each tensor. It is memory-mapped, and pages that have been read count as
    memory of this process until the file is closed.
    """
    with _opened(path) as f:
        return f.get_tensor(name)


def _read_part(path: str | os.PathLike, name: str, index: Index) -> np.ndarray:
    with _opened(path) as f:
        return f.get_slice(name)[index]


@contextmanager
def _opened(path: str | os.PathLike) -> Iterator[Any]:
    if "://" in os.fspath(path):
        raise UserError(f"{path} is not a local file; copy it to one")
    try:
        with safe_open(os.fspath(path), framework="np") as f:
            yield f
    except FileNotFoundError:
        raise UserError(f"{path} is missing; copy it there") from None
    except (SafetensorError, OSError, TypeError, ValueError) as e:
        raise UserError(f"{path} cannot be read as safetensors ({e}); copy it again") from e
