"""The arrays of a checkpoint, read one at a time, so that a conversion never holds the whole model."""

import concurrent.futures
import dataclasses
import functools
import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from poly_jax.interop.tree import ParameterTree, cast, flatten, unflatten


@dataclasses.dataclass(frozen=True)
class Tensor:
    """An array that is still where it is stored.

    Attributes:
      shape: its shape.
      dtype: of what is stored.
      load: reads it, anew at every call.
    """

    shape: tuple[int, ...]
    dtype: np.dtype
    load: Callable[[], np.ndarray]

    @property
    def nbytes(self) -> int:
        """Bytes of the array."""
        return math.prod(self.shape) * self.dtype.itemsize

    def cast(self, dtype: DTypeLike | None) -> "Tensor":
        """The tensor in `dtype` if it holds floats; None keeps it as it is."""
        stored = cast(np.zeros((), self.dtype), dtype).dtype
        if stored == self.dtype:
            return self
        return Tensor(self.shape, stored, lambda: cast(self.load(), dtype))


Tensors = Mapping[str, Tensor]


def total_bytes(tensors: Iterable[Tensor]) -> int:
    """Bytes of all of them together."""
    return sum(tensor.nbytes for tensor in tensors)


def of_tree(tree: Mapping[str, Any]) -> dict[str, Tensor]:
    """The leaves of a nested dictionary of numpy or JAX arrays by their '/'-joined names."""
    return {
        name: Tensor(tuple(leaf.shape), np.dtype(leaf.dtype), functools.partial(np.asarray, leaf))
        for name, leaf in flatten(tree).items()
    }


def read_all(tensors: Tensors, dtype: DTypeLike | None = None, at_once: int = 1) -> ParameterTree:
    """The nested dictionary of the arrays, floats cast to `dtype` unless it is None.

    `at_once` are read in parallel, each of which may hold one more copy of its array for a moment.
    """

    def read(tensor: Tensor) -> np.ndarray:
        return tensor.cast(dtype).load()

    with concurrent.futures.ThreadPoolExecutor(at_once) as pool:
        return unflatten(dict(zip(tensors, pool.map(read, tensors.values()), strict=True)))
