"""Converts epochs into steps, because CrossFit's recipes are in epochs and this project's runs in steps."""

import math
import os
from collections.abc import Mapping, Sequence

from etils import epath

from poly_jax.errors import UserError
from poly_jax.tasks.crossfit.partitions import read_partition
from poly_jax.tasks.crossfit.sample_files import data_folder, find_splits
from poly_jax.tasks.crossfit.source import SampleSource


def training_steps(
    folder: str,
    partition: str = "random",
    epochs: float = 30,
    batch_size: int = 8,
    split: str = "train",
    seeds: Sequence[int] | None = None,
    shots: Mapping[str, int] | None = None,
    max_broken_share: float = 0.0,
) -> int:
    """Return the number of steps in which the train tasks of a partition are read `epochs` times.

    It is ceil(epochs * rows / batch_size). All files of the split are read to count their rows.

    Args:
      folder: the benchmark's folder, as for `register`.
      partition: name of the partition's file.
      epochs: number of epochs, more than 0.
      batch_size: number of examples in a step, 1 or more.
      split: the split that is trained on, "train" or "all".
      seeds: as for `register`.
      shots: as for `register`.
      max_broken_share: as for `register`.

    Raises:
      UserError: a number is not in its range, no train task has the split, or a file cannot be read.
    """
    if not epochs > 0 or batch_size < 1:
        raise UserError(
            f"crossfit.training_steps: epochs is {epochs} and batch_size {batch_size}; give more than 0 and "
            "1 or more"
        )
    root = epath.Path(os.fspath(folder))
    place, chosen = data_folder(root), dict(shots or {})
    files = {
        task: find_splits(place, task, chosen.get(task), seeds)
        for task in read_partition(root, partition).train
    }
    rows = sum(
        SampleSource(task, splits, max_broken_share=max_broken_share).num_input_examples(split)
        for task, splits in files.items()
        if split in splits
    )
    if not rows:
        raise UserError(f"no train task of partition {partition!r} has a split {split!r} in {place}")
    return math.ceil(epochs * rows / batch_size)
