"""Routers whose weights are given as a table of tasks by skills: the "expert" baseline."""

import dataclasses
from typing import ClassVar

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from poly_jax.counted import counted
from poly_jax.errors import UserError
from poly_jax.files.weight_table import check_table, read_weight_table, table_width
from poly_jax.routing.router import Parameters, Router, Sizes, Uniform


class GivenRouter(Router):
    """Mixes skills by a given row of weights for each task id; a subclass says where the rows come from.

    Attributes:
      rows: weights of at least 0, one row for each task id; None while the tasks are not known.
    """

    names_tasks: ClassVar[bool] = True
    rows: tuple[tuple[float, ...], ...] | None

    def weights(
        self, parameters: Parameters, task_ids: Int[Array, "*rows"], sizes: Sizes, uniform: Uniform | None
    ) -> Float[Array, "*rows splits skills"]:
        """The row of each task, normalised, the same for every split."""
        if self.rows is None:
            raise UserError(
                f"{self} looks its rows up by task name; call Adapters.for_tasks, which passes the names on"
            )
        table = jnp.asarray(self.rows, jnp.float32)
        rows = (table / table.sum(-1, keepdims=True))[jnp.asarray(task_ids)]
        return jnp.broadcast_to(rows[..., None, :], (*rows.shape[:-1], sizes.n_splits, sizes.n_skills))


@dataclasses.dataclass(frozen=True)
class TableRouter(GivenRouter):
    """Mixes skills by a table that states which skills each task needs; nothing is learned.

    The table's columns are the skills, whatever `Adapters.n_skills` says. A row is normalised to a sum of 1
    and is the same for all splits. A new task that the run adapts to needs a row in the same table, under its
    own name; without one it can start only from the average of the skills (MHR-mu).

    Attributes:
      path: file of the table; see `poly_jax.files.weight_table.read_weight_table`. It may have rows for
        tasks that the run does not have.
      rows: the table itself, one row for each task id; read from the file where `path` is given.
    """

    path: str | None = None
    rows: tuple[tuple[float, ...], ...] | None = None

    def __post_init__(self):
        if self.path is None and self.rows is None:
            raise UserError("TableRouter.path is not bound; bind it to a table of tasks by skills")
        if self.rows is not None:
            rows = tuple(tuple(map(float, row)) for row in self.rows)
            check_table("TableRouter.rows", {f"task {i}": row for i, row in enumerate(rows)})
            object.__setattr__(self, "rows", rows)

    def for_tasks(self, names: tuple[str, ...]) -> "TableRouter":
        """The router with the rows of these tasks."""
        if self.path is not None:
            return dataclasses.replace(self, rows=read_weight_table(self.path, names))
        assert self.rows is not None
        if len(self.rows) != len(names):
            raise UserError(
                f"TableRouter.rows has {counted(len(self.rows), 'row')} for {counted(len(names), 'task')}"
            )
        return self

    def n_skills(self, requested: int, n_tasks: int) -> int:
        """The number of the table's columns."""
        if self.rows is not None:
            return len(self.rows[0])
        assert self.path is not None
        return table_width(self.path)
