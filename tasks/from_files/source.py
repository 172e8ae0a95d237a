"""The seqio data source of one task, whose files are read when a split is first needed, and only once."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from etils import epath
from jaxtyping import Int

from poly_jax.counted import counted
from poly_jax.data.broken_rows import BrokenRow, RowCheck
from poly_jax.data.quiet import seqio, tf
from poly_jax.errors import UserError
from poly_jax.tasks.from_files.example_table import ExampleTable
from poly_jax.tasks.from_files.examples import Columns, Example
from poly_jax.tasks.from_files.folders import TRAIN, Splits
from poly_jax.tasks.from_files.row_files import row_file


class FilesSource(seqio.DataSource):
    """The rows of a task's files, by split; `ExampleTable` says what an example holds.

    Args:
      task: name of the task, for messages.
      splits: the files of each split.
      columns: parts of the examples.
      fractions: shares of the training rows that become splits of their own, where these have no files.
      seed: seed that draws these rows.
      max_broken_share: largest share of the rows of a split's files that may be broken and left out.
    """

    def __init__(
        self,
        task: str,
        splits: Splits,
        columns: Columns,
        fractions: Mapping[str, float],
        seed: int,
        max_broken_share: float,
    ) -> None:
        self._cut = {
            split: share for split, share in fractions.items() if TRAIN in splits and split not in splits
        }
        super().__init__(splits=(*splits, *self._cut))
        self._task = task
        self._files = dict(splits)
        self._columns = columns
        self._seed = seed
        self._max_broken_share = max_broken_share
        self._tables: dict[str, ExampleTable] = {}
        self._broken: dict[str, tuple[BrokenRow, ...]] = {}

    @property
    def supports_arbitrary_sharding(self) -> bool:
        """False, since one file cannot be split: seqio shards the examples."""
        return False

    def list_shards(self, split: str) -> Sequence[str]:
        """The files of a split, as one shard."""
        return [",".join(map(str, self.files(split)))]

    def files(self, split: str) -> Sequence[epath.Path]:
        """The files that have the rows of a split."""
        return self._files[self._origin(split)]

    def num_input_examples(self, split: str) -> int:
        """The number of examples in a split."""
        places = self._places(split)
        return len(self._table(split)) if places is None else len(places)

    def broken_rows(self, split: str) -> tuple[BrokenRow, ...]:
        """The rows of a split's files that were left out when they were read; none where they were not."""
        return self._broken.get(self._origin(split), ())

    def get_dataset(
        self,
        split: str = "train",
        shuffle: bool = True,
        seed: int | None = None,
        shard_info: seqio.ShardInfo | None = None,
        **_: Any,
    ) -> tf.data.Dataset:
        """The examples of a split in the order of its files, or in an order that the seed gives.

        The whole split is shuffled, because files may be sorted and seqio's shuffle buffer has a thousand
        rows.

        Raises:
          UserError: the split is unknown, a file cannot be read, or too many rows are broken.
        """
        places = self._places(split)
        if shuffle:
            every = np.arange(self.num_input_examples(split)) if places is None else places
            places = np.random.default_rng(seed).permutation(every)
        return self._table(split).dataset(places)

    def _origin(self, split: str) -> str:
        """The split whose files have the rows of a split."""
        if split not in self.splits:
            raise UserError(f"task {self._task!r} has no split {split!r}; it has {', '.join(self.splits)}")
        return TRAIN if split in self._cut else split

    def _table(self, split: str) -> ExampleTable:
        """The examples of the files that have the rows of a split."""
        origin = self._origin(split)
        if origin not in self._tables:
            check = RowCheck(self._max_broken_share)
            table = ExampleTable(self._examples(origin, check))
            check.finish()
            if not len(table):
                files = ", ".join(map(str, self._files[origin]))
                raise UserError(f"{files} has no row for split {origin!r} of task {self._task!r}; remove it")
            self._tables[origin], self._broken[origin] = table, check.broken
        return self._tables[origin]

    def _examples(self, split: str, check: RowCheck) -> Iterator[Example]:
        for path in self._files[split]:
            file = row_file(path)
            self._columns.check(file)
            make = self._columns.maker(file.columns(), path)
            for number, raw in file.rows():
                place = f"{path}, {file.kind} {number}"
                example = None
                with check.row(path, number, place):
                    example = make(file.fields(raw, place), place)
                if example is not None:
                    yield example

    def _places(self, split: str) -> Int[np.ndarray, "rows"] | None:
        """Places of a split's rows in its table, in the order of the file; None for all rows.

        Raises:
          UserError: the table has too few rows to cut the fractions from it.
        """
        if not self._cut or self._origin(split) != TRAIN:
            return None
        count = len(self._table(TRAIN))
        sizes = {part: max(1, round(share * count)) for part, share in self._cut.items()}
        if sum(sizes.values()) >= count:
            raise UserError(
                f"task {self._task!r} has {counted(count, 'row')}, too few to cut {' and '.join(sizes)} from "
                "them; change from_files.register.fractions"
            )
        order = np.random.default_rng(self._seed).permutation(count)
        parts = np.split(order, np.cumsum(list(sizes.values())))
        return np.sort(dict(zip((*sizes, TRAIN), parts, strict=True))[split])
