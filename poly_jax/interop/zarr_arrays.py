"""Reads whole arrays from zarr folders, on disk or in Google Cloud Storage, with TensorStore."""

import concurrent.futures
import dataclasses
import os
import re
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
import tensorstore as ts
from etils import epath
from numpy.typing import DTypeLike

from poly_jax.errors import UserError

# Enough to hide the latency of a bucket; each read may hold one more decoded copy of its array for a moment.
_READS_AT_ONCE = 8


@dataclasses.dataclass(frozen=True)
class ZarrArray:
    """Where one array is stored.

    Attributes:
      location: what to call the array in a message.
      driver: TensorStore's driver, "zarr" (version 2) or "zarr3".
      kvstore: TensorStore's key-value store specification of the array's folder.
      shape: the shape that the checkpoint's manifest gives, where it gives one.
    """

    location: str
    driver: str
    kvstore: dict[str, Any]
    shape: tuple[int, ...] | None = None


def kvstore(folder: epath.PathLike) -> dict[str, Any]:
    """TensorStore's key-value store specification of a local or gs:// folder."""
    path = os.fspath(folder)
    scheme, separator, rest = path.partition("://")
    if not separator:
        return {"driver": "file", "path": os.path.join(os.path.abspath(path), "")}
    if scheme != "gs":
        raise UserError(f"{path}: only local and gs:// checkpoints can be read; copy it to one of those")
    bucket, _, key = rest.partition("/")
    return {"driver": "gcs", "bucket": bucket, "path": f"{key.rstrip('/')}/"}


def read_arrays(arrays: Mapping[str, ZarrArray], dtype: DTypeLike | None = None) -> dict[str, np.ndarray]:
    """Reads every array; floats are cast to `dtype`, if given, while they are read.

    Raises:
      UserError: an array is missing, incomplete, broken or of another shape than its manifest says.
    """
    with concurrent.futures.ThreadPoolExecutor(_READS_AT_ONCE) as pool:
        return dict(zip(arrays, pool.map(lambda array: _read(array, dtype), arrays.values()), strict=True))


def _read(array: ZarrArray, dtype: DTypeLike | None) -> np.ndarray:
    spec = {
        "driver": array.driver,
        "kvstore": array.kvstore,
        # Writers store every chunk of a parameter, so a chunk that is not there was lost, not zero.
        "fill_missing_data_reads": False,
    }
    try:
        store = ts.open(spec, open=True, read=True).result()
        if array.shape is not None and tuple(store.shape) != array.shape:
            raise UserError(
                f"{array.location} is stored as {list(store.shape)}, but its checkpoint says "
                f"{list(array.shape)}; copy the checkpoint again"
            )
        stored = store.dtype.numpy_dtype
        if stored == np.uint16:
            raise UserError(
                f"{array.location} is stored as uint16, which T5X used for bfloat16 before June 2021; "
                "save the checkpoint again with a newer T5X"
            )
        if dtype is not None and jnp.issubdtype(stored, jnp.floating):
            store = ts.cast(store, jnp.dtype(dtype).name)
        return store.read().result()
    except (ValueError, OSError) as e:
        cause = re.split(r" \[(?:tensorstore_spec|source locations)=", str(e).replace("\n", " "))[0]
        raise UserError(f"{array.location} cannot be read, copy the checkpoint again: {cause}") from e
