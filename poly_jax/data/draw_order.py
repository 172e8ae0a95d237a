"""The order in which the tasks of a mixture are drawn, as a function of the seed, the rates and the place."""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Float, Int

from poly_jax.data.keyed_random import random_key, uniform

# The number of draws, on average, whose order is computed at a time. The order does not depend on it.
_BLOCK = 4096


class DrawOrder:
    """Draws tasks in proportion to their rates, without end.

    The draws of a task with rate r lie at the times (k + u) / r, k = 0, 1, 2, ..., where u is uniform in
    [0, 1) and depends on the seed, the task's name and k. All draws are taken in the order of their times
    (stratified sampling). So at any time a task has been drawn as often as its rate says, to within one draw;
    independent draws would differ by the square root of their number. The draws of a time can be found
    without those before it, and the other tasks keep their order when a task is added or removed.
    """

    def __init__(self, rates: Mapping[str, float], seed: int) -> None:
        """Makes the order.

        Args:
          rates: rate of each task, above 0; they need not add up to 1.
          seed: seed of the order.
        """
        self._rates: Float[np.ndarray, "tasks"] = np.array(list(rates.values()), np.float64)
        self._keys = np.array([random_key(seed, "draws", name) for name in rates], np.uint64)
        self._duration = _BLOCK / self._rates.sum()

    def block(self, number: int) -> tuple[Int[np.ndarray, "draws"], Int[np.ndarray, "draws"]]:
        """Return the draws of a block of time, from block 0.

        Returns:
          For each draw, the index of its task among the rates, and the number of earlier draws of this task.
        """
        begin, end = number * self._duration, (number + 1) * self._duration
        # Rounding may move a draw across a border of its stratum, so one more is considered at each side.
        first = np.maximum(np.floor(begin * self._rates).astype(np.int64) - 1, 0)
        count = np.floor(end * self._rates).astype(np.int64) + 2 - first
        tasks = np.repeat(np.arange(len(count)), count)
        draws = np.arange(len(tasks)) - np.repeat(np.cumsum(count) - count, count) + first[tasks]
        times = (draws + uniform(self._keys[tasks], draws)) / self._rates[tasks]
        inside = np.flatnonzero((times >= begin) & (times < end))
        order = inside[np.argsort(times[inside], kind="stable")]
        return tasks[order], draws[order]
