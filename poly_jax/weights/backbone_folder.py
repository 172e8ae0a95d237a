"""The project's own format of a large backbone: a folder with files as in `single_file`, and their index."""

import os
import pathlib
from collections.abc import Mapping
from typing import Any

from poly_jax.files.new_output import new_folder
from poly_jax.weights import single_file
from poly_jax.weights.safetensors_writer import SHARD_BYTES, Advance, write_shards
from poly_jax.weights.shards import open_shards
from poly_jax.weights.tensors import Tensor, Tensors

_WHOLE = "backbone.safetensors"
_INDEX = f"{_WHOLE}.index.json"


def is_folder(path: str | os.PathLike) -> bool:
    """Whether `write` made this folder."""
    return any((pathlib.Path(path) / name).exists() for name in (_WHOLE, _INDEX))


def write(
    path: str | os.PathLike,
    tensors: Tensors,
    metadata: Mapping[str, Any],
    advance: Advance | None = None,
    shard_bytes: int = SHARD_BYTES,
) -> None:
    """Write tensors one at a time into a new folder, in several shards where they are large.

    The arguments are the same as in `single_file.write`; `shard_bytes` is the largest size of a shard.

    Raises:
      UserError: the folder exists already or cannot be written.
    """
    text = single_file.as_text(metadata)
    with new_folder(path) as folder:
        write_shards(
            pathlib.Path(folder), _WHOLE.removesuffix(".safetensors"), tensors, text, advance, shard_bytes
        )


def open_folder(path: str | os.PathLike) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Open the tensors, which are not read yet, and the metadata that were written.

    Raises:
      UserError: the index or a shard is missing or broken.
    """
    folder = pathlib.Path(path)
    if (folder / _WHOLE).exists():
        return single_file.open_file(folder / _WHOLE)
    metadata: dict[str, Any] = {}

    def open_shard(shard: pathlib.Path) -> dict[str, Tensor]:
        tensors, found = single_file.open_file(shard)
        metadata.update(found)
        return tensors

    return open_shards(folder / _INDEX, open_shard), metadata
