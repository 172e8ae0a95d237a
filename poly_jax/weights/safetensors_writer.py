"""Writes safetensors files tensor by tensor; the safetensors library only writes whole models."""

import contextlib
import json
import os
import pathlib
from collections.abc import Callable, Iterator, Mapping

import numpy as np

from poly_jax.errors import UserError
from poly_jax.weights.safetensors_reader import DTYPES
from poly_jax.weights.tensors import Tensor, Tensors, total_bytes

Advance = Callable[[int], None]

_KINDS = {dtype: kind for kind, dtype in DTYPES.items()}
_ALIGNMENT = 8
# The size of a shard in transformers, so a shard fits wherever one from transformers fits.
SHARD_BYTES = 5 * 10**9


def write_file(
    path: str | os.PathLike, tensors: Tensors, metadata: Mapping[str, str], advance: Advance | None = None
) -> None:
    """Write one file, which appears when it is complete, with one tensor at a time in memory.

    The layout follows the format's definition: the header's length in 8 little-endian bytes, the header as
    JSON, and the arrays in C order without gaps.

    Args:
      path: local path of the file.
      tensors: tensors to write.
      metadata: texts that readers find in the header.
      advance: called with the number of bytes of every tensor that was written.

    Raises:
      UserError: the file cannot be written, or the format lacks the dtype of a tensor.
    """
    # Readers map arrays in place. With wide numbers first, every array is aligned to its numbers' width.
    ordered = dict(sorted(tensors.items(), key=lambda item: -item[1].dtype.itemsize))
    partial = pathlib.Path(f"{os.fspath(path)}.partial")
    try:
        with _or_nothing(partial):
            with partial.open("wb") as file:
                header = _header(ordered, metadata)
                file.write(len(header).to_bytes(8, "little"))
                file.write(header)
                for name, tensor in ordered.items():
                    file.write(_content(name, tensor))
                    if advance:
                        advance(tensor.nbytes)
            partial.replace(path)
    except OSError as e:
        raise UserError(f"{path} cannot be written: {e.strerror or e}") from e


def write_shards(
    folder: pathlib.Path,
    stem: str,
    tensors: Tensors,
    metadata: Mapping[str, str],
    advance: Advance | None = None,
    shard_bytes: int = SHARD_BYTES,
) -> None:
    """Write `<stem>.safetensors`, or shards of at most `shard_bytes` and `<stem>.safetensors.index.json`.

    A larger tensor has its own shard. The index is in Hugging Face's format and is written last.
    """
    shards = list(_shards(tensors, shard_bytes))
    if len(shards) == 1:
        write_file(folder / f"{stem}.safetensors", tensors, metadata, advance)
        return
    places: dict[str, str] = {}
    for number, shard in enumerate(shards, 1):
        file = f"{stem}-{number:05}-of-{len(shards):05}.safetensors"
        write_file(folder / file, shard, metadata, advance)
        places |= dict.fromkeys(shard, file)
    index = {"metadata": {"total_size": total_bytes(tensors.values())}, "weight_map": places}
    (folder / f"{stem}.safetensors.index.json").write_text(json.dumps(index, indent=2, sort_keys=True) + "\n")


def _shards(tensors: Tensors, shard_bytes: int) -> Iterator[dict[str, Tensor]]:
    shard: dict[str, Tensor] = {}
    size = 0
    for name, tensor in tensors.items():
        if shard and size + tensor.nbytes > shard_bytes:
            yield shard
            shard, size = {}, 0
        shard[name] = tensor
        size += tensor.nbytes
    yield shard


def _header(tensors: Tensors, metadata: Mapping[str, str]) -> bytes:
    content: dict[str, object] = {"__metadata__": dict(metadata)} if metadata else {}
    begin = 0
    for name, tensor in tensors.items():
        if tensor.dtype not in _KINDS:
            raise UserError(f"{name} is {tensor.dtype}, which safetensors files do not hold")
        end = begin + tensor.nbytes
        content[name] = {
            "dtype": _KINDS[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [begin, end],
        }
        begin = end
    text = json.dumps(content, separators=(",", ":")).encode()
    return text + b" " * (-len(text) % _ALIGNMENT)


def _content(name: str, tensor: Tensor) -> memoryview:
    array = tensor.load()
    assert array.shape == tensor.shape, name
    assert array.dtype == tensor.dtype, name
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8).data


@contextlib.contextmanager
def _or_nothing(partial: pathlib.Path) -> Iterator[None]:
    """Delete a half-written file where writing it fails."""
    try:
        yield
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
