"""Reads arrays from zarr folders, on disk or in Google Cloud Storage, with TensorStore."""

import concurrent.futures
import contextlib
import dataclasses
import math
import os
import re
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import tensorstore as ts
from etils import epath

from poly_jax.errors import UserError
from poly_jax.files.json_file import parse_json
from poly_jax.weights.tensors import Index, Tensor

# This is enough to hide the latency of a bucket. Each read may need a second copy of its array for a moment.
AT_ONCE = 8
ADVICE = "copy the checkpoint again"
"""The default instruction to the user in an error message."""
# The largest number of characters of another library's error that a message repeats.
_SHOWN = 200
_CAUSE = 500
_METADATA = {"zarr": ".zarray", "zarr3": "zarr.json"}
# A chunk may extend over the edges of its array, but no writer makes a chunk so much larger than the array.
_CHUNK_TO_ARRAY = 16
_SMALL_CHUNK = 1 << 20


@dataclasses.dataclass(frozen=True)
class ZarrArray:
    """The place where one array is stored.

    Attributes:
      location: name of the array in a message.
      driver: TensorStore's driver, "zarr" (version 2) or "zarr3".
      kvstore: TensorStore's key-value store specification of the array's folder.
      shape: the shape that the checkpoint's manifest gives, where it gives one.
    """

    location: str
    driver: str
    kvstore: dict[str, Any]
    shape: tuple[int, ...] | None = None


def kvstore(folder: epath.PathLike) -> dict[str, Any]:
    """Return TensorStore's key-value store specification of a local or gs:// folder."""
    path = os.fspath(folder)
    scheme, separator, rest = path.partition("://")
    if not separator:
        return {"driver": "file", "path": os.path.join(os.path.abspath(path), "")}
    if scheme != "gs":
        raise UserError(f"{path}: only local and gs:// checkpoints can be read; copy it to one of those")
    bucket, _, key = rest.partition("/")
    return {"driver": "gcs", "bucket": bucket, "path": f"{key.rstrip('/')}/"}


@contextlib.contextmanager
def explained(path: epath.PathLike) -> Iterator[None]:
    """Raise a UserError in place of any other error about a path that is not local."""
    try:
        yield
    except UserError:
        raise
    # The errors of TensorFlow's and fsspec's file systems have no common base class.
    except Exception as e:
        if "://" not in os.fspath(path):
            raise
        reason = " ".join(str(e).split())[:_SHOWN]
        raise UserError(
            f"{path} cannot be reached ({reason}); check the path, the network and your permissions"
        ) from e


def open_arrays(arrays: Mapping[str, ZarrArray], advice: str = ADVICE) -> dict[str, Tensor]:
    """Open the arrays by name, to be read one at a time.

    Args:
      arrays: place of each array.
      advice: instruction to the user in an error message.

    Raises:
      UserError: an array is missing or broken, or has another shape than its manifest says.
    """
    with concurrent.futures.ThreadPoolExecutor(AT_ONCE) as pool:
        return dict(zip(arrays, pool.map(lambda array: _open(array, advice), arrays.values()), strict=True))


def _open(array: ZarrArray, advice: str) -> Tensor:
    spec = {
        "driver": array.driver,
        "kvstore": array.kvstore,
        # Writers store every chunk of a parameter. A missing chunk is therefore lost and does not mean zeros.
        "fill_missing_data_reads": False,
    }
    with _explained(array, advice):
        _check_metadata(array, advice)
        store = ts.open(spec, open=True, read=True).result()
    shape, dtype = tuple(store.shape), store.dtype.numpy_dtype
    # A damaged file may say that a chunk of a small array is larger than the memory.
    sides = store.chunk_layout.read_chunk.shape or ()
    chunk = math.prod(side for side in sides if side is not None)
    if chunk > max(_CHUNK_TO_ARRAY * math.prod(shape), _SMALL_CHUNK):
        raise UserError(f"{array.location} has chunks of {chunk} numbers for {list(shape)}; {advice}")
    if array.shape is not None and shape != array.shape:
        raise UserError(
            f"{array.location} is stored as {list(shape)}, but its checkpoint says {list(array.shape)};"
            f" {advice}"
        )
    if dtype == np.uint16:
        raise UserError(
            f"{array.location} is stored as uint16, which T5X used for bfloat16 before June 2021; save the "
            "checkpoint again with a newer T5X"
        )

    def load() -> np.ndarray:
        with _explained(array, advice):
            return store.read().result()

    def load_part(index: Index) -> np.ndarray:
        with _explained(array, advice):
            return store[index].read().result()

    return Tensor(shape, np.dtype(dtype), load, load_part)


def _check_metadata(array: ZarrArray, advice: str) -> None:
    """Parse an array's metadata before TensorStore does, which crashes where they nest deeply (0.1.86)."""
    file = _METADATA[array.driver]
    found = ts.KvStore.open(array.kvstore).result().read(file).result()
    if found.state == "value":
        parse_json(found.value, f"{array.location}/{file}", allow_nan=True, advice=advice)


@contextlib.contextmanager
def _explained(array: ZarrArray, advice: str) -> Iterator[None]:
    try:
        yield
    except UserError:
        raise
    # TensorStore raises many types of Python exceptions for its status codes.
    except Exception as e:
        cause = re.split(r" \[(?:tensorstore_spec|source locations)=", str(e).replace("\n", " "))[0]
        raise UserError(f"{array.location} cannot be read, {advice}: {cause[:_CAUSE]}") from None
