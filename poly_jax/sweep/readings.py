"""The examples that a sweep has read, which methods with the same sequence lengths share."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from poly_jax.data.task_table import TaskTable
from poly_jax.experiment import Experiment
from poly_jax.sweep.scoring import TaskScorer
from poly_jax.transfer.adapt import read_examples


class Readings:
    """Few-shot examples and evaluation sets, each read once."""

    def __init__(self) -> None:
        self._examples: dict[Any, Mapping[str, np.ndarray]] = {}
        self._scorers: dict[Any, TaskScorer] = {}

    def examples(
        self, experiment: Experiment, task: str, split: str, shots: int | None
    ) -> Mapping[str, np.ndarray]:
        """The few-shot examples of a task; see `poly_jax.transfer.adapt.read_examples`."""
        key = (*_lengths(experiment), task, split, shots)
        if key not in self._examples:
            self._examples[key] = read_examples(experiment, TaskTable.of(task), task, split, shots)
        return self._examples[key]

    def scorer(self, experiment: Experiment, task: str, split: str) -> TaskScorer:
        """The scorer of a task's evaluation split."""
        key = (*_lengths(experiment), task, split)
        if key not in self._scorers:
            self._scorers[key] = TaskScorer(experiment, task, split)
        return self._scorers[key]


def _lengths(experiment: Experiment) -> tuple[int, int]:
    return experiment.data.inputs_length, experiment.data.targets_length
