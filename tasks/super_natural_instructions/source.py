"""The seqio data source of one task file, which is read once, when its examples are first needed."""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

from etils import epath

from poly_jax.data.broken_rows import BrokenRow, RowCheck
from poly_jax.data.drawn_reference import reference_columns
from poly_jax.data.quiet import seqio, tf
from poly_jax.errors import UserError
from poly_jax.tasks.super_natural_instructions.prompts import punctuated
from poly_jax.tasks.super_natural_instructions.reading import Instance, TaskFile, read_task
from poly_jax.tasks.super_natural_instructions.splits import Splits


class TaskFileSource(seqio.DataSource):
    """Instances of a task file, in splits.

    Its examples have scalar texts `task`, `definition`, `input` and `id`, `reference_columns`, and, if there
    are demonstrations, `demonstration_inputs` and `demonstration_outputs`. These are the file's texts, not
    prompts, so seqio's offline cache of them serves every prompt form.

    Args:
      path: the task file.
      split: function that splits the file's instances. Only instances in a split are kept in memory.
      demonstrations: largest number of positive examples to add.
      row_per_reference: whether the split `train` has a row for each reference of an instance, in place of a
        row for each instance with all of its references.
      max_broken_share: largest share of the file's instances that may be broken and left out.
    """

    def __init__(
        self,
        path: epath.Path,
        split: Callable[[Sequence[Instance]], Splits],
        demonstrations: int,
        row_per_reference: bool = False,
        max_broken_share: float = 0.0,
    ) -> None:
        super().__init__(splits=())
        self._path = path
        self._split = split
        self._demonstrations = demonstrations
        self._row_per_reference = row_per_reference
        self._max_broken_share = max_broken_share
        self._broken: tuple[BrokenRow, ...] = ()

    @functools.cached_property
    def _content(self) -> tuple[TaskFile, int, Splits]:
        check = RowCheck(self._max_broken_share)
        file = read_task(self._path, check)
        check.finish()
        self._broken = check.broken
        splits = self._split(file.instances)
        if self._row_per_reference and "train" in splits:
            splits = {**splits, "train": _row_per_reference(splits["train"])}
        file_without_instances = TaskFile(
            file.path, file.definition, file.categories, file.demonstrations[: self._demonstrations], ()
        )
        return file_without_instances, len(file.instances), splits

    @property
    def splits(self) -> Sequence[str]:
        """The splits that have instances."""
        return tuple(self._content[2])

    @property
    def supports_arbitrary_sharding(self) -> bool:
        """False, since one file cannot be split: seqio shards the examples."""
        return False

    @property
    def categories(self) -> tuple[str, ...]:
        """The task's categories, as the official results name them: lower case, "_" for spaces."""
        return tuple("_".join(name.lower().split()) for name in self._content[0].categories)

    @property
    def category(self) -> str:
        """The first of the task's categories, by which the official results group tasks.

        Raises:
          UserError: the file names none.
        """
        if not self.categories:
            raise UserError(f"{self._path}: the file has no field 'Categories', which results are grouped by")
        return self.categories[0]

    def list_shards(self, split: str) -> Sequence[str]:
        """The file, which is the only shard."""
        return [str(self._path)]

    def num_input_examples(self, split: str) -> int:
        """The number of rows in a split."""
        return len(self._content[2].get(split, ()))

    def broken_rows(self, split: str) -> tuple[BrokenRow, ...]:
        """The instances of the file that were left out, of whichever split, once it was read."""
        del split
        return self._broken

    def get_dataset(
        self,
        split: str = "train",
        shuffle: bool = True,
        seed: int | None = None,
        shard_info: seqio.ShardInfo | None = None,
        **_: Any,
    ) -> tf.data.Dataset:
        """The examples of a split in a fixed order; seqio shuffles them.

        Raises:
          UserError: the split has none.
        """
        file, size, splits = self._content
        if split not in splits:
            raise UserError(
                f"{self._path}: the {size} instances leave none for split {split!r}; "
                f"it has {', '.join(splits) or 'none'}"
            )
        instances = splits[split]
        columns: dict[str, Any] = {
            "task": [self._path.stem] * len(instances),
            "definition": [punctuated(file.definition)] * len(instances),
            "id": [instance.id for instance in instances],
            "input": [punctuated(instance.input) for instance in instances],
            **reference_columns([instance.references for instance in instances]),
        }
        if file.demonstrations:
            inputs, outputs = zip(*file.demonstrations, strict=True)
            columns["demonstration_inputs"] = [list(map(punctuated, inputs))] * len(instances)
            columns["demonstration_outputs"] = [list(map(punctuated, outputs))] * len(instances)
        return tf.data.Dataset.from_tensor_slices(columns)


def _row_per_reference(instances: Sequence[Instance]) -> tuple[Instance, ...]:
    return tuple(
        dataclasses.replace(instance, references=(reference,))
        for instance in instances
        for reference in instance.references
    )
