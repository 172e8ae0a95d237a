"""The seqio data source of one data set, whose examples are scored with each of its templates."""

import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from poly_jax.data.quiet import seqio, tf
from poly_jax.errors import UserError
from poly_jax.tasks.t0_pretraining.row_files import FETCH, ScoredRecords, ScoredRow


class Shown(NamedTuple):
    """An example with its answer choices, as one template shows it.

    Attributes:
      inputs: the prompt.
      choices: the texts of the choices.
      correct: whether each choice is right.
      weight: weight of the example in the mean over examples.
      example: number of the example in its split.
      template: P3's name of the template, without `_score_eval`.
    """

    inputs: str
    choices: tuple[str, ...]
    correct: tuple[bool, ...]
    weight: float
    example: int
    template: str


class ScoreEvalSource(seqio.DataSource):
    """The examples of a data set, each with all of its templates.

    Its examples have the scalar texts `inputs`, `targets` (the first right choice) and `template`, the vector
    of texts `choices` and of booleans `correct`, and the numbers `weight`, `label` (index of the first right
    choice) and `example_id`. An example none of whose choices is right has the label 0. No prediction is
    right for it, as in T0's evaluation.

    Args:
      templates: for each template, by P3's name of it, its files by split.
    """

    def __init__(self, templates: Mapping[str, Mapping[str, ScoredRecords]]) -> None:
        splits = dict.fromkeys(split for files in templates.values() for split in files)
        super().__init__(splits=tuple(splits), caching_permitted=False)
        self._templates = dict(templates)
        self._shown: dict[str, list[Shown]] = {}

    @property
    def supports_arbitrary_sharding(self) -> bool:
        """False, since the choices of an example may be in several files: seqio shards the examples."""
        return False

    def list_shards(self, split: str) -> Sequence[str]:
        """The files of all templates, as one shard."""
        files = [files[split] for files in self._templates.values() if split in files]
        return [",".join(str(path) for file in files for path in file.paths)]

    def num_input_examples(self, split: str) -> int:
        """The number of examples in a split, where each prompt of an example counts as one."""
        return len(self._read(split))

    def get_dataset(
        self,
        split: str = "validation",
        shuffle: bool = True,
        seed: int | None = None,
        shard_info: seqio.ShardInfo | None = None,
        **_: Any,
    ) -> tf.data.Dataset:
        """The examples of a split, template after template; seqio shuffles them.

        Raises:
          UserError: the split has no file, or its files are broken.
        """
        shown = self._read(split)
        width = max(len(row.choices) for row in shown)
        padded = [[*row.choices, *[""] * (width - len(row.choices))] for row in shown]
        correct = [[*row.correct, *[False] * (width - len(row.correct))] for row in shown]
        labels = [row.correct.index(True) if any(row.correct) else 0 for row in shown]
        return tf.data.Dataset.from_tensor_slices(
            {
                "inputs": [row.inputs for row in shown],
                "targets": [row.choices[label] for row, label in zip(shown, labels, strict=True)],
                "template": [row.template for row in shown],
                "choices": padded,
                "correct": correct,
                "weight": tf.constant([row.weight for row in shown], tf.float32),
                "label": tf.constant(labels, tf.int32),
                "example_id": tf.constant([row.example for row in shown], tf.int32),
            }
        )

    def _read(self, split: str) -> list[Shown]:
        if split not in self._shown:
            files = {name: files[split] for name, files in self._templates.items() if split in files}
            if not files:
                raise UserError(
                    f"{', '.join(self._templates)} has no split {split!r}; it has {', '.join(self.splits)}"
                )
            self._shown[split] = [each for name, file in files.items() for each in _examples(name, file)]
        return self._shown[split]


def _examples(template: str, file: ScoredRecords) -> Iterable[Shown]:
    """Group the rows of a file by their examples; seqio writes rows to the shards in any order."""
    rows = sorted(file.rows(), key=lambda row: (row.example, row.choice))
    for number, group in itertools.groupby(rows, key=lambda row: row.example):
        yield _example(template, file, number, list(group))


def _example(template: str, file: ScoredRecords, number: int, choices: list[ScoredRow]) -> Shown:
    name = f"{file.paths[0].parent}: example {number}"
    if [row.choice for row in choices] != list(range(len(choices))):
        there = ", ".join(str(row.choice) for row in choices)
        raise UserError(f"{name} has the choices {there}, not each number from 0 once; {FETCH}")
    if len({(row.inputs, row.weight) for row in choices}) > 1:
        raise UserError(f"{name} has choices of several inputs or weights; {FETCH}")
    return Shown(
        choices[0].inputs,
        tuple(row.targets for row in choices),
        tuple(row.is_correct for row in choices),
        choices[0].weight,
        number,
        template,
    )
