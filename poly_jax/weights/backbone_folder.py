"""The project's own form of a large backbone: a folder of files like `single_file`'s, and their index."""

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
    """Whether a folder is one that `write` made."""
    return any((pathlib.Path(path) / name).exists() for name in (_WHOLE, _INDEX))


def write(
    path: str | os.PathLike,
    tensors: Tensors,
    metadata: Mapping[str, Any],
    advance: Advance | None = None,
    shard_bytes: int = SHARD_BYTES,
) -> None:
    """Writes tensors one at a time into a folder that is made, with shards where there is much to write.

    Args: as `single_file.write`; `shard_bytes` is the most that a shard holds.

    Raises:
      UserError: it is there already or cannot be written.
    """
    text = single_file.as_text(metadata)
    with new_folder(path) as folder:
        write_shards(
            pathlib.Path(folder), _WHOLE.removesuffix(".safetensors"), tensors, text, advance, shard_bytes
        )


def open_folder(path: str | os.PathLike) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors, not yet read, and the metadata that were written.

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
