"""Routers whose weights are given: a table of tasks by skills, the "expert" baseline."""

import dataclasses

import gin
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from poly_jax.errors import UserError
from poly_jax.routing.router import Parameters, Router, Sizes, Uniform
from poly_jax.routing.table_file import check_table, read_table, table_width


class GivenRouter(Router):
    """Mixes skills as a row says that is given for each task id; a subclass says where rows come from.

    Attributes:
      rows: weights of at least 0, a row for every task id; None where the tasks are not known yet.
    """

    rows: tuple[tuple[float, ...], ...] | None

    def weights(
        self, parameters: Parameters, task_ids: Int[Array, "*rows"], sizes: Sizes, uniform: Uniform | None
    ) -> Float[Array, "*rows splits skills"]:
        """The row of each task, normalised, for every head."""
        if self.rows is None:
            raise UserError(
                f"the rows of {self} go by the names of tasks; use Adapters.for_tasks, which tells them"
            )
        table = jnp.asarray(self.rows, jnp.float32)
        rows = (table / table.sum(-1, keepdims=True))[jnp.asarray(task_ids)]
        return jnp.broadcast_to(rows[..., None, :], (*rows.shape[:-1], sizes.n_splits, sizes.n_skills))


@gin.configurable
@dataclasses.dataclass(frozen=True)
class TableRouter(GivenRouter):
    """Mixes skills as a table says that knows which skills each task needs; nothing is learned.

    The table's columns are the skills, whatever `Adapters.n_skills` says; a row is normalised to a sum of 1
    and is the same for all heads. A new task that the run adapts to has its row in the same table, under its
    own name; without one it can start from the skills' average only (MHR-mu).

    Attributes:
      path: file of the table; see `poly_jax.routing.table_file.read_table`. Other tasks than the run's may
        have rows in it.
      rows: the table itself, a row for every task id; read from the file where there is one.
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
        """With the rows of these tasks."""
        if self.path is not None:
            return dataclasses.replace(self, rows=read_table(self.path, names))
        assert self.rows is not None
        if len(self.rows) != len(names):
            raise UserError(f"TableRouter.rows has {len(self.rows)} rows, and there are {len(names)} tasks")
        return self

    def n_skills(self, requested: int, n_tasks: int) -> int:
        """As many as the table has columns."""
        if self.rows is not None:
            return len(self.rows[0])
        assert self.path is not None
        return table_width(self.path)
