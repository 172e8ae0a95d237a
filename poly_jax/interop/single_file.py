"""The project's own file of a backbone: one safetensors file of T5X names with JSON metadata."""

import json
import os
from collections.abc import Mapping
from typing import Any

import numpy as np
import safetensors.numpy
from numpy.typing import DTypeLike

from poly_jax.errors import UserError
from poly_jax.interop.safetensors_reader import read_tensor, tensor_shapes, text_metadata
from poly_jax.interop.tree import ParameterTree, cast, flatten, unflatten

_FORMAT = "poly_jax"


def save(path: str | os.PathLike, tree: Mapping[str, Any], metadata: Mapping[str, Any]) -> None:
    """Writes a tree of arrays and what JSON can hold about it; the file appears when it is whole.

    Args:
      path: local file, by convention `*.safetensors`.
      tree: nested dictionary of numpy or JAX arrays, bfloat16 included.
      metadata: such as the fields of the model's configuration.
    """
    # safetensors writes the memory of an array as it lies, whatever its strides say.
    arrays = {name: np.asarray(leaf, order="C") for name, leaf in flatten(tree).items()}
    partial = f"{os.fspath(path)}.partial"
    text = {"format": _FORMAT, "metadata": json.dumps(dict(metadata), sort_keys=True)}
    try:
        safetensors.numpy.save_file(arrays, partial, metadata=text)
        os.replace(partial, path)
    except (OSError, safetensors.SafetensorError) as e:
        raise UserError(f"{path} cannot be written: {e}") from e


def load(path: str | os.PathLike, dtype: DTypeLike | None = None) -> tuple[ParameterTree, dict[str, Any]]:
    """The tree and the metadata that `save` wrote; floats are cast to `dtype` unless it is None.

    Raises:
      UserError: the file is missing, broken or was not written by `save`.
    """
    text = text_metadata(path)
    if text.get("format") != _FORMAT:
        raise UserError(
            f"{path} was not written by poly_jax; of a Hugging Face model give the folder with config.json"
        )
    arrays = {name: cast(read_tensor(path, name), dtype) for name in tensor_shapes(path)}
    return unflatten(arrays), json.loads(text["metadata"])
