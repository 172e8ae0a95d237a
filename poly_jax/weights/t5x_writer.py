"""Writes parameters as a checkpoint of T5X's legacy format, which all versions of T5X read."""

import math
from typing import Any

import numpy as np
import tensorstore as ts
from etils import epath
from flax import serialization

from poly_jax.errors import UserError
from poly_jax.files.new_output import new_folder
from poly_jax.weights.safetensors_writer import Advance
from poly_jax.weights.tensors import Tensor, Tensors
from poly_jax.weights.tree import unflatten
from poly_jax.weights.zarr_arrays import explained, kvstore

_VERSION = 3
_CHUNK_BYTES = 64 * 2**20
_COMPRESSOR = {"id": "gzip", "level": 1}


def write_t5x(output: str, step: int, tensors: Tensors, advance: Advance | None = None) -> epath.Path:
    """Write `checkpoint_<step>`: zarr folders, with one tensor in memory at a time, and last their manifest.

    The checkpoint holds the parameters and the step, which T5X's `eval` and `infer` need. To continue
    training, T5X fills in the optimizer's state with `RestoreCheckpointConfig.fallback_to_scratch`.

    Args:
      output: local or gs:// folder in which the checkpoint's folder is made.
      step: number of the step; T5X does not accept 0.
      tensors: tensors by T5X's names, one per layer.
      advance: called with the number of bytes of every tensor that was written.

    Returns:
      The checkpoint's folder.

    Raises:
      UserError: the folder exists already or cannot be written.
    """
    target = {}
    with explained(output), new_folder(epath.Path(output) / f"checkpoint_{step}") as folder:
        for name, tensor in tensors.items():
            target[name] = _write(folder, f"target.{name.replace('/', '.')}", tensor)
            if advance:
                advance(tensor.nbytes)
        state = {"target": unflatten(target), "state": {"step": np.asarray(step, np.int32)}}
        content = {"version": _VERSION, "optimizer": state}
        (folder / "checkpoint").write_bytes(serialization.msgpack_serialize(content))
    return folder


def _write(folder: epath.Path, name: str, tensor: Tensor) -> dict[str, Any]:
    """Write an array, and return its entry for the manifest."""
    metadata = {
        "shape": list(tensor.shape),
        "chunks": _chunks(tensor),
        "compressor": _COMPRESSOR,
    }
    spec = {"driver": "zarr", "dtype": tensor.dtype.name, "metadata": metadata}
    place = kvstore(folder / name)
    array = tensor.load()
    try:
        store = ts.open({**spec, "kvstore": place}, create=True, open=True).result()
        store.write(array).result()
    except ValueError as e:
        raise UserError(f"{folder / name} cannot be written: {str(e).splitlines()[0]}") from e
    # The manifest does not hold the checkpoint's own path, so the checkpoint may be moved.
    beside: dict[str, Any] = {"driver": place["driver"], "path": f"{name}/"}
    if place["driver"] == "gcs":
        beside["bucket"] = "t5x-dummy-bucket"
    return {**spec, "kvstore": beside}


def _chunks(tensor: Tensor) -> list[int]:
    if not tensor.shape:
        return []
    row = math.prod(tensor.shape[1:]) * tensor.dtype.itemsize
    return [min(tensor.shape[0], max(1, _CHUNK_BYTES // max(row, 1))), *tensor.shape[1:]]
