"""A few examples in memory, and the batches that are drawn from them."""

import json
import os
from collections.abc import Mapping

import numpy as np
from etils import epath
from jaxtyping import Int

from poly_jax.errors import UserError
from poly_jax.files.json_fields import Fields
from poly_jax.files.json_file import read_json
from poly_jax.training.host_share import HostShare

Arrays = dict[str, np.ndarray]

EXAMPLE_IDS = "example_ids"


def batch_indices(n_examples: int, batch_size: int, seed: int, step: int) -> Int[np.ndarray, "batch"]:
    """The examples in the batch of a step (from 0).

    Epochs are consecutive permutations, so a batch may hold the end of one epoch and the start of the next.
    The batch depends only on seed and step, so a resumed run draws the same batches as an uninterrupted run.
    """
    places = np.arange(step * batch_size, (step + 1) * batch_size)
    epochs = places // n_examples
    orders = {
        epoch: np.random.default_rng((seed, int(epoch))).permutation(n_examples)
        for epoch in np.unique(epochs)
    }
    return np.array([orders[epoch][place % n_examples] for epoch, place in zip(epochs, places, strict=True)])


def count_examples(rows: Mapping[str, np.ndarray]) -> int:
    """The number of examples that the rows show.

    Every row is a separate example, unless `example_ids` [row] says that several rows show the same example
    with different prompts.
    """
    if EXAMPLE_IDS in rows:
        return len(np.unique(rows[EXAMPLE_IDS]))
    return len(next(iter(rows.values())))


def first_examples(rows: Mapping[str, np.ndarray], count: int) -> Arrays:
    """All rows of the first `count` examples of each task."""
    n_rows = len(next(iter(rows.values())))
    ids = rows.get(EXAMPLE_IDS, np.arange(n_rows))
    # The first row of every example. np.unique does not keep the order of the rows.
    firsts = np.sort(np.unique(ids, return_index=True)[1])
    tasks = rows.get("task_ids", np.zeros(n_rows, np.int32))[firsts]
    chosen = np.concatenate([ids[firsts[tasks == task][:count]] for task in np.unique(tasks)])
    return {name: leaf[np.isin(ids, chosen)] for name, leaf in rows.items()}


def draw_batch(rows: Mapping[str, np.ndarray], batch_size: int, seed: int, step: int) -> Arrays:
    """The batch of a step (from 0), which depends only on the rows, the seed and the step.

    `batch_indices` chooses the examples. An example with several rows (prompts) is shown by one of them,
    which is drawn each time, as in T-Few (arXiv 2205.05638). The batch has no `example_ids`.
    """
    examples = batch_indices(count_examples(rows), batch_size, seed, step)
    chosen = examples
    if EXAMPLE_IDS in rows:
        ids = rows[EXAMPLE_IDS]
        order = np.argsort(ids, kind="stable")
        starts, sizes = np.unique(ids[order], return_index=True, return_counts=True)[1:]
        # The third number makes this seed differ from those of the permutations, which are (seed, epoch).
        prompts = np.random.default_rng((seed, step, 1)).integers(sizes[examples])
        chosen = order[starts[examples] + prompts]
    return {name: leaf[chosen] for name, leaf in rows.items() if name != EXAMPLE_IDS}


class FewShotBatches:
    """An endless stream of batches over a few examples; see `poly_jax.training.batches.Batches`."""

    def __init__(
        self, rows: Mapping[str, np.ndarray], batch_size: int, seed: int, share: HostShare = HostShare(0, 1)
    ):
        """Make a stream over arrays with leading axis `row`; a batch larger than an epoch repeats examples.

        `batch_size` counts the rows of all hosts; each host reads its share of every batch.
        """
        self._rows = dict(rows)
        self._batch_size = batch_size
        self._seed = seed
        self._share = share
        self._step = 0
        if not len(self):
            raise UserError(
                "there are no examples to adapt to; give a split that has some (adapt.split_name, or"
                " sweep.train_split of a sweep)"
            )

    def __len__(self) -> int:
        """The number of examples."""
        return count_examples(self._rows)

    def __iter__(self) -> "FewShotBatches":
        """The stream itself."""
        return self

    def __next__(self) -> Arrays:
        """This host's rows of the next batch."""
        batch = draw_batch(self._rows, self._batch_size, self._seed, self._step)
        self._step += 1
        size = self._batch_size // self._share.count
        first = self._share.index * size
        return {name: rows[first : first + size] for name, rows in batch.items()}

    def save(self, filename: str | os.PathLike[str]) -> None:
        """Write the position in the stream to a file."""
        epath.Path(filename).write_text(json.dumps({"step": self._step}))

    def restore(self, filename: str | os.PathLike[str]) -> None:
        """Go to the position that is saved in a file.

        Raises:
          UserError: the file is missing or damaged.
        """
        self._step = Fields(read_json(filename), filename).take("step", int, at_least=0)
