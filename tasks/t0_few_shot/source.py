"""The seqio data source of one held-out task, whose files are read when they are first needed."""

import functools
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
from etils import epath

from poly_jax.data.broken_rows import BrokenRow, RowCheck
from poly_jax.data.quiet import seqio, tf
from poly_jax.errors import UserError
from poly_jax.tasks.t0_few_shot.held_out import HeldOutTask
from poly_jax.tasks.t0_few_shot.reading import Shown, show_examples
from poly_jax.tasks.t0_few_shot.templates import Template, read_templates

EvaluationTemplates = Literal["drawn", "all"]
VALIDATION = "validation"

# Seed of the templates that are drawn for evaluation, which are the same for every run.
_SEED = 0


class HeldOutSource(seqio.DataSource):
    """Few-shot examples and the evaluation set of a task.

    Its examples have the scalar texts `inputs`, `targets` (the right choice) and `template`, the vector of
    texts `choices`, and the numbers `label` and `example_id` (int32). A training split has every example with
    every template, in the order of its file; a program that draws batches uses one of them each time.

    Args:
      task: the held-out task.
      templates: path of its `templates.yaml`.
      files: file of examples for every split.
      evaluation_templates: "drawn" shows each example of `validation` with one template, "all" with each.
      max_broken_share: largest share of a file's examples that may be broken and left out.
    """

    def __init__(
        self,
        task: HeldOutTask,
        templates: epath.Path,
        files: Mapping[str, epath.Path],
        evaluation_templates: EvaluationTemplates,
        max_broken_share: float = 0.0,
    ) -> None:
        super().__init__(splits=tuple(files))
        self._task = task
        self._templates_file = templates
        self._files = dict(files)
        self._evaluation_templates = evaluation_templates
        self._max_broken_share = max_broken_share
        self._shown: dict[str, list[Shown]] = {}
        self._broken: dict[str, tuple[BrokenRow, ...]] = {}

    @functools.cached_property
    def _templates(self) -> list[Template]:
        templates = self._task.choose(read_templates(self._templates_file))
        if not templates:
            raise UserError(f"{self._templates_file} has no template for the data set's original task")
        return templates

    @property
    def supports_arbitrary_sharding(self) -> bool:
        """False, since one file cannot be split: seqio shards the examples."""
        return False

    def list_shards(self, split: str) -> Sequence[str]:
        """The file, which is the only shard."""
        return [str(self._files[split])]

    def files(self, split: str) -> Sequence[epath.Path]:
        """The file of a split, and the templates that its examples are shown with."""
        return self._files[split], self._templates_file

    def num_input_examples(self, split: str) -> int:
        """The number of examples in a split, where each prompt of an example counts as one."""
        return len(self._read(split))

    def broken_rows(self, split: str) -> tuple[BrokenRow, ...]:
        """The examples of a split that were left out when it was read; none where it was not read."""
        return self._broken.get(split, ())

    def get_dataset(
        self,
        split: str = "train",
        shuffle: bool = True,
        seed: int | None = None,
        shard_info: seqio.ShardInfo | None = None,
        **_: Any,
    ) -> tf.data.Dataset:
        """The examples of a split in the order of their file; seqio shuffles them.

        Raises:
          UserError: the split has no file, or its file cannot be read or shown.
        """
        shown = self._read(split)
        width = max((len(row.choices) for row in shown), default=0)
        texts = {
            "inputs": [row.input for row in shown],
            "targets": [row.choices[row.label] for row in shown],
            "template": [row.template for row in shown],
        }
        choices = [[*row.choices, *[""] * (width - len(row.choices))] for row in shown]
        numbers = {"label": [row.label for row in shown], "example_id": [row.example for row in shown]}
        return tf.data.Dataset.from_tensor_slices(
            {
                **{name: tf.constant(column, tf.string) for name, column in texts.items()},
                "choices": tf.constant(choices, tf.string, (len(shown), width)),
                **{name: tf.constant(column, tf.int32) for name, column in numbers.items()},
            }
        )

    def _read(self, split: str) -> list[Shown]:
        if split not in self._files:
            raise UserError(
                f"task {self._task.name!r} has no split {split!r}; it has {', '.join(self._files)}"
            )
        if split not in self._shown:
            check = RowCheck(self._max_broken_share)
            shown = show_examples(
                self._files[split], self._templates, lambda place: self._places(split, place), check
            )
            check.finish()
            self._shown[split], self._broken[split] = shown, check.broken
        return self._shown[split]

    def _places(self, split: str, place: int) -> list[int]:
        count = len(self._templates)
        if split == VALIDATION and self._evaluation_templates == "drawn":
            return [int(np.random.default_rng((_SEED, place)).integers(count))]
        return list(range(count))
