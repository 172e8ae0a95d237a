"""Arrays of a checkpoint that are read one at a time: a conversion never holds the whole model in memory."""

import collections
import concurrent.futures
import dataclasses
import functools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, TypeVar

import numpy as np
from numpy.typing import DTypeLike

from poly_jax.weights.tree import ParameterTree, cast, flatten, unflatten

T = TypeVar("T")

Index = tuple[slice, ...]
"""A block of an array: for each axis a slice, whose step is 1."""


@dataclasses.dataclass(frozen=True)
class Tensor:
    """An array on disk that is not read yet.

    Attributes:
      shape: shape of the array.
      dtype: dtype of the stored array.
      load: function that reads the array, again at every call.
      load_part: function that reads a block of the array and nothing else; None where the file does not allow
        that.
    """

    shape: tuple[int, ...]
    dtype: np.dtype
    load: Callable[[], np.ndarray]
    load_part: Callable[[Index], np.ndarray] | None = None

    @property
    def nbytes(self) -> int:
        """Size of the array in bytes."""
        return math.prod(self.shape) * self.dtype.itemsize

    def cast(self, dtype: DTypeLike | None) -> "Tensor":
        """Cast the tensor to `dtype` if it holds floats; None keeps it as it is."""
        stored = cast(np.zeros((), self.dtype), dtype).dtype
        if stored == self.dtype:
            return self
        return Tensor(
            self.shape, stored, lambda: cast(self.load(), dtype), lambda index: cast(self.part(index), dtype)
        )

    def part(self, index: Index) -> np.ndarray:
        """Read a block of the array, alone where the file allows that."""
        return self.load()[index] if self.load_part is None else self.load_part(index)


Tensors = Mapping[str, Tensor]


def total_bytes(tensors: Iterable[Tensor]) -> int:
    """Return the size of all tensors together in bytes."""
    return sum(tensor.nbytes for tensor in tensors)


def of_tree(tree: Mapping[str, Any]) -> dict[str, Tensor]:
    """Return the leaves of a nested dictionary of numpy or JAX arrays by their '/'-joined names."""
    return {
        name: Tensor(
            tuple(leaf.shape),
            np.dtype(leaf.dtype),
            functools.partial(np.asarray, leaf),
            functools.partial(_part_of, leaf),
        )
        for name, leaf in flatten(tree).items()
    }


def _part_of(array: Any, index: Index) -> np.ndarray:
    return np.asarray(array[index])


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
    return ahead({name: tensor.cast(dtype).load for name, tensor in tensors.items()}, at_once)


def ahead(reads: Mapping[str, Callable[[], T]], at_once: int) -> Iterator[tuple[str, T]]:
    """Yield what these functions return, in their order, and call `at_once` of them ahead in threads."""
    with concurrent.futures.ThreadPoolExecutor(at_once) as pool:
        running: collections.deque[tuple[str, concurrent.futures.Future[T]]] = collections.deque()
        for name, read in reads.items():
            running.append((name, pool.submit(read)))
            if len(running) > at_once:
                yield _result(*running.popleft())
        while running:
            yield _result(*running.popleft())


def _result(name: str, reading: concurrent.futures.Future[T]) -> tuple[str, T]:
    return name, reading.result()
