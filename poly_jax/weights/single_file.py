"""The project's own format of a backbone: one safetensors file with T5X's names and JSON metadata."""

import json
import os
from collections.abc import Mapping
from typing import Any

from numpy.typing import DTypeLike

from poly_jax.errors import UserError
from poly_jax.files.json_fields import Fields
from poly_jax.files.json_file import parse_json
from poly_jax.weights.safetensors_reader import open_tensors, text_metadata
from poly_jax.weights.safetensors_writer import Advance, write_file
from poly_jax.weights.tensors import Tensor, Tensors, of_tree, read_all
from poly_jax.weights.tree import ParameterTree

_FORMAT = "poly_jax"


def as_text(metadata: Mapping[str, Any]) -> dict[str, str]:
    """Convert values that JSON can hold to the text metadata of a file of this project."""
    return {"format": _FORMAT, "metadata": json.dumps(dict(metadata), sort_keys=True)}


def write(
    path: str | os.PathLike, tensors: Tensors, metadata: Mapping[str, Any], advance: Advance | None = None
) -> None:
    """Write tensors one at a time, with JSON metadata; the file appears when it is complete.

    Args:
      path: local path of the file, by convention `*.safetensors`.
      tensors: tensors by T5X's names.
      metadata: values that JSON can hold, such as the fields of the model's configuration.
      advance: called with the number of bytes of every tensor that was written.

    Raises:
      UserError: the file cannot be written.
    """
    write_file(path, tensors, as_text(metadata), advance)


def save(path: str | os.PathLike, tree: Mapping[str, Any], metadata: Mapping[str, Any]) -> None:
    """Write a nested dictionary of numpy or JAX arrays, bfloat16 included; see `write`."""
    write(path, of_tree(tree), metadata)


def open_file(path: str | os.PathLike) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Open the tensors, which are not read yet, and the metadata that were written.

    Raises:
      UserError: the file is missing or broken, or this module did not write it.
    """
    text = text_metadata(path)
    if text.get("format") != _FORMAT:
        raise UserError(
            f"{path} was not written by poly_jax; for a Hugging Face model give the folder with config.json"
        )
    place = f"{path}: its metadata"
    return open_tensors(path), parse_json(Fields(text, path).take("metadata", str), place)


def load(path: str | os.PathLike, dtype: DTypeLike | None = None) -> tuple[ParameterTree, dict[str, Any]]:
    """Read the nested dictionary and the metadata that were saved; a `dtype` that is not None casts floats.

    Raises:
      UserError: see `open_file`.
    """
    tensors, metadata = open_file(path)
    return read_all(tensors, dtype), metadata
