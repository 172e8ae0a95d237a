"""A router whose rows are drawn once and never learned: a control for learned routing."""

import dataclasses
import zlib

import gin
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from poly_jax.routing.router import Parameters, Router, Sizes, Uniform


@gin.configurable
@dataclasses.dataclass(frozen=True)
class RandomRouter(Router):
    """Every task and head has a mix of its own, uniform over all mixes, that stays as it is drawn.

    A row is a function of the seed and the task's name, so that it is the same in another mixture and is
    another's for a new task. All sites draw alike. It is not the control that adapts fresh skills to a new
    task; there the skills are random.

    Attributes:
      seed: of the rows.
      names: hashes of the tasks' names, in the order of their ids; ids stand in where there are none.
    """

    seed: int = 0
    names: tuple[int, ...] = ()

    def for_tasks(self, names: tuple[str, ...]) -> "RandomRouter":
        """With rows that go by these names."""
        return dataclasses.replace(self, names=tuple(zlib.crc32(name.encode()) for name in names))

    def weights(
        self, parameters: Parameters, task_ids: Int[Array, "*rows"], sizes: Sizes, uniform: Uniform | None
    ) -> Float[Array, "*rows splits skills"]:
        """Shares of 1 for every task and head: exponential draws over their sum."""
        task_ids = jnp.asarray(task_ids)
        hashes = jnp.asarray(self.names, jnp.uint32)[task_ids] if self.names else task_ids
        key = jax.random.key(self.seed)

        def row(hash: Int[Array, ""]) -> Float[Array, "splits skills"]:
            draws = jax.random.exponential(jax.random.fold_in(key, hash), (sizes.n_splits, sizes.n_skills))
            return draws / draws.sum(-1, keepdims=True)

        rows = jax.vmap(row)(hashes.reshape(-1))
        return rows.reshape(*task_ids.shape, sizes.n_splits, sizes.n_skills)
