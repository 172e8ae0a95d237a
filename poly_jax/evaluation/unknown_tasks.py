"""Mixes for tasks that a run does not know: the mean of all rows, a similar task's row, or a regression."""

import dataclasses
import sys
from collections.abc import Callable, Mapping

import jax
import numpy as np

from poly_jax.adapters.config import Adapters
from poly_jax.counted import counted
from poly_jax.data.task_table import TaskTable
from poly_jax.errors import UserError
from poly_jax.evaluation.task_texts import known_texts, nearest, read_descriptions, regression_shares
from poly_jax.evaluation.unknown_answers import UNKNOWN, Unknown
from poly_jax.model.transformer import Transformer
from poly_jax.routing.stand_ins import StandInRows
from poly_jax.training.restore import Restored
from poly_jax.weights.tree import listing

Shares = tuple[tuple[float, ...], ...]


@dataclasses.dataclass(frozen=True)
class UnknownTasks:
    """The way in which a run answers for tasks that it does not know.

    Attributes:
      how: "average" mixes by the mean of all tasks' weights; "nearest" mixes as the known task whose text is
        most similar; "regression" mixes as ridge regression predicts from the known tasks' texts.
      descriptions: file of texts that describe tasks, for "nearest" and "regression"; None to describe known
        tasks by their training examples.
    """

    how: Unknown
    descriptions: str | None = None

    def __post_init__(self):
        if self.how not in UNKNOWN:
            raise UserError(f"unknown is {self.how!r}; use one of {', '.join(UNKNOWN)}")

    @classmethod
    def of(cls, unknown: Unknown | None, descriptions: str | None) -> "UnknownTasks | None":
        """Make it from a program's flags; None if unknown tasks are an error.

        Raises:
          UserError: `unknown` is not one of the ways, or nothing would read the descriptions.
        """
        if descriptions is not None and unknown in (None, "average"):
            raise UserError(
                f"--descriptions={descriptions} is for --unknown=nearest and --unknown=regression, which"
                " compare texts; give one of them, or leave it out"
            )
        return None if unknown is None else cls(unknown, descriptions)

    def shares(
        self, known: TaskTable, wanted: TaskTable, own_text: Callable[[str], str], lengths: Mapping[str, int]
    ) -> Shares:
        """The shares of the known tasks in the mix of each wanted task; a known task uses its own row.

        Standard error says which rows the unknown tasks use.

        Args:
          known: the tasks of the run.
          wanted: tasks of which some are not known.
          own_text: function from the name of an unknown task to its inputs, where it has no description.
          lengths: number of tokens of `inputs` and `targets`.

        Raises:
          UserError: the texts cannot be read or compared.
        """
        unknown = [name for name in wanted.names if name not in known.names]
        rows = np.eye(len(known))
        found = {name: rows[known.id(name)] for name in wanted.names if name in known.names}
        if unknown and self.how == "average":
            found |= dict.fromkeys(unknown, rows.mean(0))
            _say(f"{listing(unknown)}: not known, answered by the average of {counted(len(known), 'row')}")
        elif unknown:
            described = read_descriptions(self.descriptions) if self.descriptions else {}
            if others := sorted(set(described) - {*known.names, *unknown}):
                _say(f"{self.descriptions}: {listing(others)}: no task of the run, and not asked for")
            texts = known_texts(known.names, described, lengths)
            for name in unknown:
                text = described.get(name) or own_text(name)
                if self.how == "regression":
                    found[name] = regression_shares(texts, text)
                    largest = known.names[int(found[name].argmax())]
                    _say(
                        f"{name}: not known, answered by regression over {counted(len(known), 'row')}"
                        " (the largest share"
                        f" is {found[name].max():.2f}, of {largest})"
                    )
                else:
                    best = nearest(texts, text)
                    found[name] = rows[known.id(best.task)]
                    _say(
                        f"{name}: not known, answered as {best.task} (similarity of texts {best.cosine:.2f})"
                    )
        return tuple(tuple(found[name].tolist()) for name in wanted.names)


def serves_any_task(adapters: Adapters | None) -> bool:
    """Whether a model needs no row for a task: its adapters, if it has some, do not depend on the task."""
    return adapters is None or (adapters.router.serves_any_task and not adapters.tasks_own_parameters)


def check_rows(adapters: Adapters | None, run: str) -> None:
    """Raise a UserError where an unknown task needs no row, or needs more than a row.

    Args:
      adapters: settings of the run's adapters; None for a run without adapters.
      run: folder of the run, for messages.
    """
    if adapters is None or serves_any_task(adapters):
        raise UserError(
            f"--unknown finds a row of the router for a task that {run} does not know, and this run answers"
            " any task without one; leave it out"
        )
    if adapters.tasks_own_parameters:
        own = "private skill" if adapters.private_skill is not None else "matrix of its own"
        raise UserError(
            f"in {run} each task has a {own} beside its row, which an unknown task does not have;"
            " evaluate it with `poly-jax eval --zero_shot`"
        )


def with_shares(restored: Restored, shares: Shares, table: TaskTable) -> Restored:
    """The model for the tasks of a table that use the rows of known tasks; see `UnknownTasks.shares`."""
    adapters = restored.model.adapters
    assert adapters is not None
    router = StandInRows(adapters.router, adapters.n_tasks, shares)
    changed = dataclasses.replace(adapters, router=router, n_tasks=len(table))
    return dataclasses.replace(restored, model=Transformer(restored.model.config, changed), table=table)


def unknown_task(name: str, known: TaskTable) -> UserError:
    """The error about one task that is not known, with the ways to answer for it."""
    return UserError(
        f"task {name!r} is not in the table of {counted(len(known), 'task')} ({known.close_to(name)});"
        " give one"
        " of them, or say how to answer for a task without a row: --unknown=average (the mean of all rows),"
        " --unknown=nearest (the row of the task with the most similar text) or --unknown=regression (rows"
        " predicted from texts)"
    )


def _say(text: str) -> None:
    if jax.process_index() == 0:
        print(text, file=sys.stderr)
