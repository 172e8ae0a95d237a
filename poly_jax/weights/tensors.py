"""Arrays of a checkpoint that are read one at a time: a conversion never holds the whole model in memory."""

import collections
import concurrent.futures
import dataclasses
import functools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from poly_jax.weights.tree import ParameterTree, cast, flatten, unflatten


@dataclasses.dataclass(frozen=True)
class Tensor:
    """An array on disk that is not read yet.

    Attributes:
      shape: shape of the array.
      dtype: dtype of the stored array.
      load: function that reads the array, again at every call.
    """

    shape: tuple[int, ...]
    dtype: np.dtype
    load: Callable[[], np.ndarray]

    @property
    def nbytes(self) -> int:
        """Size of the array in bytes."""
        return math.prod(self.shape) * self.dtype.itemsize

    def cast(self, dtype: DTypeLike | None) -> "Tensor":
        """Cast the tensor to `dtype` if it holds floats; None keeps it as it is."""
        stored = cast(np.zeros((), self.dtype), dtype).dtype
        if stored == self.dtype:
            return self
        return Tensor(self.shape, stored, lambda: cast(self.load(), dtype))


Tensors = Mapping[str, Tensor]


def total_bytes(tensors: Iterable[Tensor]) -> int:
    """Return the size of all tensors together in bytes."""
    return sum(tensor.nbytes for tensor in tensors)


def of_tree(tree: Mapping[str, Any]) -> dict[str, Tensor]:
    """Return the leaves of a nested dictionary of numpy or JAX arrays by their '/'-joined names."""
    return {
        name: Tensor(tuple(leaf.shape), np.dtype(leaf.dtype), functools.partial(np.asarray, leaf))
        for name, leaf in flatten(tree).items()
    }


def read_all(tensors: Tensors, dtype: DTypeLike | None = None, at_once: int = 1) -> ParameterTree:
    """Read all arrays into a nested dictionary; the arguments are the same as in `read_each`."""
    return unflatten(dict(read_each(tensors, dtype, at_once)))


def read_each(
    tensors: Tensors, dtype: DTypeLike | None = None, at_once: int = 1
) -> Iterator[tuple[str, np.ndarray]]:
    """Yield names and arrays one after another, in the order of the tensors.

    Args:
      tensors: tensors to read.
      dtype: dtype that floats are cast to; None keeps the stored dtype.
      at_once: number of arrays that are read in parallel, ahead of the current one. Each may need a second
        copy of its array for a moment.
    """
    with concurrent.futures.ThreadPoolExecutor(at_once) as pool:
        ahead: collections.deque[tuple[str, concurrent.futures.Future[np.ndarray]]] = collections.deque()
        for name, tensor in tensors.items():
            ahead.append((name, pool.submit(tensor.cast(dtype).load)))
            if len(ahead) > at_once:
                yield _result(*ahead.popleft())
        while ahead:
            yield _result(*ahead.popleft())


def _result(name: str, reading: concurrent.futures.Future[np.ndarray]) -> tuple[str, np.ndarray]:
    return name, reading.result()
