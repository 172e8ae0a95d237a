"""Reads PyTorch's files, which are pickles, with PyTorch's restricted loader, which runs no code in them."""

import functools
import os
import zipfile
from typing import Any

import ml_dtypes
import numpy as np

from poly_jax.errors import UserError
from poly_jax.weights.tensors import Tensor

SUFFIXES = (".bin", ".pt", ".pth", ".ckpt")


def open_pickle(path: str | os.PathLike) -> dict[str, Tensor]:
    """Open the tensors of a file by name; they are memory-mapped, except in PyTorch's oldest format.

    The file holds a dictionary of tensors, or has one under "state_dict", as PyTorch Lightning writes it.

    Raises:
      UserError: PyTorch is not installed; or the file is missing, broken, or holds more than tensors and
        plain values.
    """
    try:
        import torch
    except ImportError as e:
        raise UserError(
            f"{path} is a pickle, which can run code when read; install torch, whose restricted loader runs "
            "none, or convert the file to safetensors"
        ) from e
    try:
        # PyTorch's first format, up to version 1.5, is not an archive and cannot be mapped.
        mapped = zipfile.is_zipfile(path)
        content = torch.load(os.fspath(path), map_location="cpu", weights_only=True, mmap=mapped)
    except FileNotFoundError:
        raise UserError(f"{path} is missing; copy it there") from None
    # The loader raises errors of many types: from its parser, the archive and the restriction.
    except Exception as e:
        raise UserError(
            f"{path} holds more than tensors or is broken ({str(e).splitlines()[0]}); save only its state "
            "dict, or convert it to safetensors where you trust it"
        ) from e
    if isinstance(content, dict) and isinstance(content.get("state_dict"), dict):
        content = content["state_dict"]
    if not isinstance(content, dict) or not all(isinstance(t, torch.Tensor) for t in content.values()):
        raise UserError(f"{path} holds no dictionary of tensors; save the model's state dict")
    dtypes = {torch.bfloat16: np.dtype(ml_dtypes.bfloat16)}
    return {
        name: Tensor(
            tuple(tensor.shape),
            dtypes.get(tensor.dtype) or np.dtype(str(tensor.dtype).removeprefix("torch.")),
            functools.partial(_array, tensor),
        )
        for name, tensor in content.items()
    }


def _array(tensor: Any) -> np.ndarray:
    import torch

    if tensor.dtype == torch.bfloat16:
        return tensor.contiguous().view(torch.int16).numpy().view(ml_dtypes.bfloat16).copy()
    return tensor.numpy().copy()
