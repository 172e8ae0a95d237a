"""The seqio data source of one task, whose files are read when a split is first needed, and only once."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Int

from poly_jax.data.broken_rows import BrokenRow, RowCheck
from poly_jax.data.drawn_reference import reference_columns
from poly_jax.data.quiet import seqio, tf
from poly_jax.errors import UserError
from poly_jax.tasks.from_files.examples import Columns, Example
from poly_jax.tasks.from_files.folders import TRAIN, Splits
from poly_jax.tasks.from_files.row_files import row_file

Arrays = dict[str, tf.Tensor]


class FilesSource(seqio.DataSource):
    """The rows of a task's files, by split.

    Its examples have the scalar text `inputs` and `reference_columns`; with answer choices also `choices`
    (texts, filled up with empty ones to the largest number), `label` and `example_id` (int32). The texts of a
    split are held in memory once, however often and in whatever order they are read.

    Args:
      task: name of the task, for messages.
      splits: the files of each split.
      columns: what the examples are made of.
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
        # A split is cut from the training rows only where it has no file.
        self._cut = {split: share for split, share in fractions.items() if split not in splits}
        if self._cut and TRAIN not in splits:
            self._cut = {}
        super().__init__(splits=(*splits, *self._cut))
        self._task = task
        self._files = dict(splits)
        self._columns = columns
        self._seed = seed
        self._max_broken_share = max_broken_share
        self._read: dict[str, Arrays] = {}
        self._broken: dict[str, tuple[BrokenRow, ...]] = {}

    @property
    def supports_arbitrary_sharding(self) -> bool:
        """False, since one file cannot be split: seqio shards the examples."""
        return False

    def list_shards(self, split: str) -> Sequence[str]:
        """The files of a split, as one shard."""
        return [",".join(map(str, self._files[self._origin(split)]))]

    def num_input_examples(self, split: str) -> int:
        """The number of examples in a split."""
        return int(self._arrays(split)["inputs"].shape[0])

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

        Raises:
          UserError: the split is unknown, a file cannot be read, or too many rows are broken.
        """
        arrays = self._arrays(split)
        if not shuffle:
            return tf.data.Dataset.from_tensor_slices(arrays)
        # Files may be sorted, and seqio's shuffle buffer holds a thousand rows. The texts are not copied.
        order = np.random.default_rng(seed).permutation(self.num_input_examples(split))

        @tf.autograph.experimental.do_not_convert
        def example(place: tf.Tensor) -> Arrays:
            return {name: array[place] for name, array in arrays.items()}

        return tf.data.Dataset.from_tensor_slices(order).map(example)

    def _origin(self, split: str) -> str:
        """The split whose files have the rows of a split."""
        if split not in self.splits:
            raise UserError(
                f"task {self._task!r} has no split {split!r}; it has {', '.join(self.splits)}"
                + ("; bind from_files.register.fractions" if len(self.splits) == 1 else "")
            )
        return TRAIN if split in self._cut else split

    def _arrays(self, split: str) -> Arrays:
        if split not in self._read:
            origin = self._origin(split)
            examples = self._examples(origin)
            if origin == TRAIN and self._cut:
                for part, places in self._places(len(examples)).items():
                    self._read[part] = _arrays([examples[place] for place in places])
            else:
                self._read[origin] = _arrays(examples)
        return self._read[split]

    def _examples(self, split: str) -> list[Example]:
        check = RowCheck(self._max_broken_share)
        examples = []
        for path in self._files[split]:
            file = row_file(path)
            make = self._columns.maker(file.columns(), path)
            for number, raw in file.rows():
                place = f"{path}, {file.kind} {number}"
                with check.row(path, number, place):
                    examples.append(make(file.fields(raw, place), place))
        check.finish()
        if not examples:
            files = ", ".join(map(str, self._files[split]))
            raise UserError(f"{files} has no row for split {split!r} of task {self._task!r}; remove it")
        self._broken[split] = check.broken
        return examples

    def _places(self, count: int) -> dict[str, Int[np.ndarray, "rows"]]:
        """Places of the training rows that each split has, in their order, of `count` rows."""
        sizes = {split: max(1, round(share * count)) for split, share in self._cut.items()}
        if sum(sizes.values()) >= count:
            raise UserError(
                f"task {self._task!r} has {count} rows, which are too few to cut {', '.join(sizes)} from "
                "them; change from_files.register.fractions"
            )
        order = np.random.default_rng(self._seed).permutation(count)
        *cut, rest = np.split(order, np.cumsum(list(sizes.values())))
        return {split: np.sort(places) for split, places in zip((*sizes, TRAIN), (*cut, rest), strict=True)}


def _arrays(examples: Sequence[Example]) -> Arrays:
    references = reference_columns([example.references for example in examples])
    columns: Arrays = {
        "inputs": tf.constant([example.input for example in examples], tf.string),
        **{name: tf.constant(column) for name, column in references.items()},
    }
    width = max(len(example.choices) for example in examples)
    if not width:
        return columns
    choices = [[*example.choices, *[""] * (width - len(example.choices))] for example in examples]
    return {
        **columns,
        "choices": tf.constant(choices, tf.string),
        "label": tf.constant([example.label for example in examples], tf.int32),
        "example_id": tf.range(len(examples), dtype=tf.int32),
    }
