"""Rows for tasks that a run does not know: the mean of all rows, or the row of the most similar task."""

import dataclasses
import sys
from collections.abc import Callable, Mapping
from typing import Literal, get_args

import jax

from poly_jax.adapters.config import Adapters
from poly_jax.data.registry import close_to
from poly_jax.data.task_table import TaskTable
from poly_jax.errors import UserError
from poly_jax.evaluation.task_texts import known_texts, nearest, read_descriptions
from poly_jax.model.transformer import Transformer
from poly_jax.routing.stand_ins import StandInRows
from poly_jax.training.restore import Restored
from poly_jax.weights.tree import listing

Unknown = Literal["average", "nearest"]
UNKNOWN = get_args(Unknown)

Rows = tuple[tuple[int, ...], ...]


@dataclasses.dataclass(frozen=True)
class UnknownTasks:
    """How a run answers for tasks that it does not know.

    Attributes:
      how: "average" mixes by the mean of all tasks' weights; "nearest" mixes as the known task whose text is
        most similar.
      descriptions: file of texts that describe tasks, for "nearest"; None to describe known tasks by their
        training examples.
    """

    how: Unknown
    descriptions: str | None = None

    def __post_init__(self):
        if self.how not in UNKNOWN:
            raise UserError(f"unknown is {self.how!r}; use one of {', '.join(UNKNOWN)}")

    def rows(
        self, known: TaskTable, wanted: TaskTable, own_text: Callable[[str], str], lengths: Mapping[str, int]
    ) -> Rows:
        """The ids of the known tasks whose rows each wanted task uses; a known task uses its own.

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
        found: dict[str, tuple[int, ...]] = {}
        if unknown and self.how == "average":
            found = dict.fromkeys(unknown, tuple(range(len(known))))
            _say(f"{listing(unknown)}: not known, answered by the average of {len(known)} rows")
        elif unknown:
            described = read_descriptions(self.descriptions) if self.descriptions else {}
            texts = known_texts(known.names, described, lengths)
            for name in unknown:
                best = nearest(texts, described.get(name) or own_text(name))
                found[name] = (known.id(best.task),)
                _say(f"{name}: not known, answered as {best.task} (similarity of texts {best.cosine:.2f})")
        return tuple(found[name] if name in found else (known.id(name),) for name in wanted.names)


def serves_any_task(adapters: Adapters | None) -> bool:
    """Whether a model needs no row for a task: its adapters, if it has some, do not depend on the task."""
    return adapters is None or (adapters.router.serves_any_task and not adapters.tasks_own_parameters)


def check_rows(adapters: Adapters, run: str) -> None:
    """Raise a UserError where a task has more of its own than a row, which an unknown task does not have."""
    if adapters.tasks_own_parameters:
        own = "private skill" if adapters.private_skill is not None else "matrix of its own"
        raise UserError(
            f"in {run} each task has a {own} beside its row, which an unknown task does not have;"
            " evaluate with --zero_shot"
        )


def with_rows(restored: Restored, rows: Rows, table: TaskTable) -> Restored:
    """The model for the tasks of a table that use the rows of known tasks; see `UnknownTasks.rows`."""
    adapters = restored.model.adapters
    assert adapters is not None
    router = StandInRows(adapters.router, adapters.n_tasks, rows)
    changed = dataclasses.replace(adapters, router=router, n_tasks=len(table))
    return dataclasses.replace(restored, model=Transformer(restored.model.config, changed), table=table)


def unknown_task(name: str, known: TaskTable) -> UserError:
    """The error about one task that is not known, with the ways to answer for it."""
    return UserError(
        f"task {name!r} is not in the table of {len(known)} tasks ({close_to(name, known.names)}); give one"
        " of them, or say how to answer for a task without a row: --unknown=average (the mean of all rows) or"
        " --unknown=nearest (the row of the task with the most similar text)"
    )


def _say(text: str) -> None:
    if jax.process_index() == 0:
        print(text, file=sys.stderr)
