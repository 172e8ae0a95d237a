"""The seqio data source of one task, whose files are read when a split is first needed."""

from collections.abc import Collection, Sequence
from typing import Any

from etils import epath

from poly_jax.data.broken_rows import BrokenRow, RowCheck
from poly_jax.data.drawn_reference import reference_columns
from poly_jax.data.quiet import seqio, tf
from poly_jax.errors import UserError
from poly_jax.tasks.crossfit.reading import Row, read_rows
from poly_jax.tasks.crossfit.sample_files import Splits


class SampleSource(seqio.DataSource):
    """The rows of a task's files, by split.

    Its examples have scalar texts `task`, `description` ("" for none) and `input`, and `reference_columns`.

    Args:
      task: the name of the task in CrossFit.
      splits: the files of each split, which are read in this order.
      description: the text to put before every input; "" for none.
      check_choices: see `reading.read_rows`.
      labels: see `reading.read_rows`.
      max_broken_share: largest share of a split's rows that may be broken and left out.
    """

    def __init__(
        self,
        task: str,
        splits: Splits,
        description: str = "",
        check_choices: bool = False,
        labels: Collection[str] | None = None,
        max_broken_share: float = 0.0,
    ) -> None:
        super().__init__(splits=tuple(splits))
        self._task = task
        self._files = dict(splits)
        self._description = description
        self._check_choices = check_choices
        self._max_broken_share = max_broken_share
        self._labels = labels
        self._rows: dict[str, list[Row]] = {}
        self._broken: dict[str, tuple[BrokenRow, ...]] = {}

    @property
    def supports_arbitrary_sharding(self) -> bool:
        """False, since one file cannot be split: seqio shards the examples."""
        return False

    def list_shards(self, split: str) -> Sequence[str]:
        """The task's files of a split, as one shard: together they are small."""
        return [",".join(map(str, self._files[split]))]

    def files(self, split: str) -> Sequence[epath.Path]:
        """The files of a split."""
        return self._files[split]

    def num_input_examples(self, split: str) -> int:
        """The number of rows in a split."""
        return len(self.rows(split))

    def rows(self, split: str) -> list[Row]:
        """Return the rows of a split in the order of its files.

        Raises:
          UserError: the task has no file of the split, a file is broken, or too many rows are.
        """
        if split not in self._files:
            raise UserError(
                f"task {self._task!r} has no split {split!r}; its files give {', '.join(self._files)}"
            )
        if split not in self._rows:
            check = RowCheck(self._max_broken_share)
            rows = [
                row
                for path in self._files[split]
                for row in read_rows(path, self._check_choices, self._labels, check)
            ]
            check.finish()
            self._rows[split], self._broken[split] = rows, check.broken
        return self._rows[split]

    def broken_rows(self, split: str) -> tuple[BrokenRow, ...]:
        """The rows of a split that were left out when it was read; none where it was not read."""
        return self._broken.get(split, ())

    def get_dataset(
        self,
        split: str = "train",
        shuffle: bool = True,
        seed: int | None = None,
        shard_info: seqio.ShardInfo | None = None,
        **_: Any,
    ) -> tf.data.Dataset:
        """The examples of a split in the order of its files; seqio shuffles them.

        Raises:
          UserError: an error of `rows`.
        """
        rows = self.rows(split)
        return tf.data.Dataset.from_tensor_slices(
            {
                "task": [self._task] * len(rows),
                "description": [self._description] * len(rows),
                "input": [row.input for row in rows],
                **reference_columns([row.references for row in rows]),
            }
        )
