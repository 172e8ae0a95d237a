"""The order of each task's examples, epoch by epoch."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Int

from poly_jax.data.example_rows import PerDraw
from poly_jax.data.keyed_random import permutations, random_key


class EpochOrders:
    """The orders in which many tasks go through their examples, which are random in each epoch.

    An order is a function of the seed, the task's name and the epoch. One order of each task is kept, since
    a task is drawn epoch after epoch.

    Args:
      names: names of the tasks.
      sizes: number of examples of each task, at least 1.
      seed: seed of the orders.
    """

    def __init__(self, names: Sequence[str], sizes: Int[np.ndarray, "tasks"], seed: int) -> None:
        self._names, self._sizes, self._seed = names, sizes, seed
        self._begins = np.cumsum(sizes) - sizes
        self._orders = np.zeros(sizes.sum(), np.uint32)
        self._epochs = np.zeros(len(sizes), np.int64)
        self._keep(self._epochs, np.arange(len(sizes)))

    def examples(self, tasks: PerDraw, epochs: PerDraw, places: PerDraw) -> PerDraw:
        """Return the number of the example that comes at a place of an epoch of a task, for many of them."""
        found = self._orders[self._begins[tasks] + places].astype(np.int64)
        missing = np.flatnonzero(self._epochs[tasks] != epochs)
        if len(missing):
            found[missing] = self._made(tasks[missing], epochs[missing], places[missing])
        return found

    def _made(self, tasks: PerDraw, epochs: PerDraw, places: PerDraw) -> PerDraw:
        """Make the orders of some epochs and keep them; of several epochs of a task, the last one is kept."""
        pairs, which = np.unique(np.stack([epochs, tasks]), axis=1, return_inverse=True)
        orders, begins = self._keep(*pairs)
        return orders[begins[which.reshape(-1)] + places]

    def _keep(self, epochs: PerDraw, tasks: PerDraw) -> tuple[Int[np.ndarray, "examples"], PerDraw]:
        """Make the orders of epochs, which increase; return them one after another, and where each begins."""
        sizes = self._sizes[tasks]
        begins = np.cumsum(sizes) - sizes
        orders = np.empty(sizes.sum(), np.uint32)
        keys = [_key(self._seed, self._names[task], epoch) for task, epoch in zip(tasks, epochs, strict=True)]
        # Tasks of one size are sorted together: a call of NumPy costs more than a sort of a few numbers.
        for size in np.unique(sizes):
            alike = np.flatnonzero(sizes == size)
            made = permutations(np.array(keys, np.uint64)[alike], int(size))
            orders[begins[alike, None] + np.arange(size)] = made
            # NumPy keeps the last value where a place occurs several times.
            self._orders[self._begins[tasks[alike], None] + np.arange(size)] = made
        self._epochs[tasks] = epochs
        return orders, begins


def order(seed: int, name: str, epoch: int, size: int) -> Int[np.ndarray, "size"]:
    """Return the order of a task's examples in an epoch."""
    return permutations(np.array([_key(seed, name, epoch)], np.uint64), size)[0]


def _key(seed: int, name: str, epoch: int) -> int:
    return random_key(seed, "order", name, epoch)
