"""A handful of examples in memory, and the batches drawn from them."""

import json
import os
from collections.abc import Mapping

import numpy as np
from etils import epath
from jaxtyping import Int

from poly_jax.errors import UserError

Arrays = dict[str, np.ndarray]


def batch_indices(n_examples: int, batch_size: int, seed: int, step: int) -> Int[np.ndarray, "batch"]:
    """Which examples the batch of a step (from 0) holds.

    Epochs are permutations that follow on one another, so that a batch may straddle two. A function of seed
    and step alone: a resumed run draws what an uninterrupted one draws.
    """
    places = np.arange(step * batch_size, (step + 1) * batch_size)
    epochs = places // n_examples
    orders = {
        epoch: np.random.default_rng((seed, int(epoch))).permutation(n_examples)
        for epoch in np.unique(epochs)
    }
    return np.array([orders[epoch][place % n_examples] for epoch, place in zip(epochs, places, strict=True)])


class FewShotBatches:
    """An endless stream of batches over a few examples; see `poly_jax.training.loop.Batches`."""

    def __init__(self, examples: Mapping[str, np.ndarray], batch_size: int, seed: int):
        """Over examples with leading axis `example`; an epoch smaller than a batch repeats examples in it."""
        self._examples = dict(examples)
        self._batch_size = batch_size
        self._seed = seed
        self._step = 0
        if not len(self):
            raise UserError("there are no examples to adapt to")

    def __len__(self) -> int:
        """Number of examples."""
        return len(next(iter(self._examples.values())))

    def __iter__(self) -> "FewShotBatches":
        """Itself."""
        return self

    def __next__(self) -> Arrays:
        """The next batch."""
        rows = batch_indices(len(self), self._batch_size, self._seed, self._step)
        self._step += 1
        return {name: leaf[rows] for name, leaf in self._examples.items()}

    def save(self, filename: str | os.PathLike[str]) -> None:
        """Writes the position."""
        epath.Path(filename).write_text(json.dumps({"step": self._step}))

    def restore(self, filename: str | os.PathLike[str]) -> None:
        """Goes to a saved position."""
        self._step = json.loads(epath.Path(filename).read_text())["step"]
