"""The embedded benchmark's examples as arrays, without a data pipeline."""

import dataclasses
from collections.abc import Sequence

import numpy as np
from jaxtyping import Int

from poly_jax.data.task_table import TaskTable
from poly_jax.tasks.skillbench.compositions import Task
from poly_jax.tasks.skillbench.examples import DEFAULT_SIZES, Form, examples, tokenise
from poly_jax.tasks.skillbench.tasks import registered_name

Arrays = dict[str, np.ndarray]


def task_arrays(
    task: Task,
    split: str,
    data_seed: int,
    form: Form,
    few_shot: int = DEFAULT_SIZES.few_shot,
    task_id: int = 0,
) -> Arrays:
    """One split of a task as a batch for the model, `[example, length]`.

    `few_shot` is the number of examples of a new task to adapt to; the test examples do not depend on it.
    """
    sizes = dataclasses.replace(DEFAULT_SIZES, few_shot=few_shot)
    arrays: Arrays = dict(tokenise(examples(task, split, data_seed, form, sizes), form=form))
    arrays["task_ids"] = np.full(len(arrays["encoder_input_tokens"]), task_id, np.int32)
    return arrays


def seen_arrays(tasks: Sequence[Task], table: TaskTable, split: str, data_seed: int, form: Form) -> Arrays:
    """One split of all training tasks, one task after another, with their ids in a run's table."""
    parts = [
        task_arrays(
            task,
            split,
            data_seed,
            form,
            task_id=table.id(registered_name(task.name, form, data_seed)),
        )
        for task in tasks
    ]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def exact_match(
    predicted: Int[np.ndarray, "*rows length"], targets: Int[np.ndarray, "*rows length"]
) -> float:
    """Percentage of rows without a wrong token, the end of the sequence included."""
    return 100.0 * float(np.all(predicted == targets, axis=-1).mean())
