"""The seqio data source of one task of T0's training mixture: the rows of one template or of several."""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Int

from poly_jax.data.broken_rows import BrokenRow
from poly_jax.data.quiet import seqio, tf
from poly_jax.errors import UserError
from poly_jax.tasks.t0_pretraining.row_files import RowFile


class TemplatesSource(seqio.DataSource):
    """The rows of some templates, one template after another, or shuffled over all of them.

    Its examples have the texts `inputs`, `targets` and `template` (P3's name). The published programs shuffle
    all rows before they train. A shuffle buffer cannot do that: data sets such as IMDb and DBpedia are sorted
    by class, and their rows do not fit into memory. So the rows are read at places in shuffled order.

    Args:
      templates: for each template, by P3's name, its files by split.
    """

    def __init__(self, templates: Mapping[str, Mapping[str, RowFile]]) -> None:
        splits = dict.fromkeys(split for files in templates.values() for split in files)
        super().__init__(splits=tuple(splits), caching_permitted=False, performs_internal_shuffling=True)
        self._templates = dict(templates)

    @property
    def supports_arbitrary_sharding(self) -> bool:
        """True, since a row is read by its place, and each shard reads its own places."""
        return True

    def list_shards(self, split: str) -> Sequence[str]:
        """The files of a split."""
        return [str(path) for _, file in self._files(split) for path in file.paths]

    def num_input_examples(self, split: str) -> int:
        """The number of rows in a split."""
        return sum(len(file) for _, file in self._files(split))

    def broken_rows(self, split: str) -> tuple[BrokenRow, ...]:
        """The rows of a split that were left out when it was read; none where it was not read."""
        return tuple(row for _, file in self._files(split) for row in file.broken_rows)

    def get_dataset(
        self,
        split: str = "train",
        shuffle: bool = True,
        seed: int | None = None,
        shard_info: seqio.ShardInfo | None = None,
        **_: Any,
    ) -> tf.data.Dataset:
        """The rows of a split in the order of their files, or in an order that the seed gives.

        Raises:
          UserError: the split has no file, or a file cannot be read; a broken row is an error when it is
            drawn.
        """
        files = self._files(split)
        ends = list(itertools.accumulate(len(file) for _, file in files))

        def read(place: Int[np.ndarray, ""]) -> tuple[bytes, bytes, bytes]:
            which = int(np.searchsorted(ends, place, side="right"))
            name, file = files[which]
            row = file.row(int(place) - ends[which] + len(file))
            return row.inputs.encode(), row.targets.encode(), name.encode()

        order = np.random.SeedSequence(seed).generate_state(2)

        @tf.autograph.experimental.do_not_convert
        def example(place: tf.Tensor) -> dict[str, tf.Tensor]:
            if shuffle:
                place = tf.random.experimental.index_shuffle(place, seed=order, max_index=ends[-1] - 1)
            # The function is declared stateless so that TensorFlow can save a position in the dataset.
            texts = tf.numpy_function(read, [place], [tf.string] * 3, stateful=False)
            names = ("inputs", "targets", "template")
            return {name: tf.ensure_shape(text, []) for name, text in zip(names, texts, strict=True)}

        first, step = (shard_info.index, shard_info.num_shards) if shard_info else (0, 1)
        places = tf.data.Dataset.range(first, ends[-1], step)
        return places.map(example, num_parallel_calls=tf.data.AUTOTUNE)

    def _files(self, split: str) -> list[tuple[str, RowFile]]:
        files = [(name, files[split]) for name, files in self._templates.items() if split in files]
        if not files:
            raise UserError(
                f"{', '.join(self._templates)} has no split {split!r}; it has {', '.join(self.splits)}"
            )
        return files
