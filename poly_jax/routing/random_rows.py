"""A router whose rows are drawn once and never learned: a control for learned routing."""

import dataclasses
import zlib

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from poly_jax.routing.router import Parameters, Router, Sizes, Uniform


@dataclasses.dataclass(frozen=True)
class RandomRouter(Router):
    """Each task and split has a mix of its own, drawn uniformly from all mixes and never changed.

    A row is a function of the seed and the task's name. A task thus has the same row in every mixture, and a
    new task has a row unlike the old ones. All sites have the same rows. This is not the control that adapts
    fresh skills to a new task: there the skills are random.

    Attributes:
      seed: seed of the rows.
      names: hashes of the tasks' names, in the order of their ids; without names, ids take their place.
    """

    seed: int = 0
    names: tuple[int, ...] = ()

    def for_tasks(self, names: tuple[str, ...]) -> "RandomRouter":
        """The router whose rows are drawn for these names."""
        return dataclasses.replace(self, names=tuple(zlib.crc32(name.encode()) for name in names))

    def weights(
        self, parameters: Parameters, task_ids: Int[Array, "*rows"], sizes: Sizes, uniform: Uniform | None
    ) -> Float[Array, "*rows splits skills"]:
        """Weights that sum to 1 for each task and split: exponential draws over their sum."""
        task_ids = jnp.asarray(task_ids)
        hashes = jnp.asarray(self.names, jnp.uint32)[task_ids] if self.names else task_ids
        key = jax.random.key(self.seed)

        def row(hash: Int[Array, ""]) -> Float[Array, "splits skills"]:
            draws = jax.random.exponential(jax.random.fold_in(key, hash), (sizes.n_splits, sizes.n_skills))
            return draws / draws.sum(-1, keepdims=True)

        rows = jax.vmap(row)(hashes.reshape(-1))
        return rows.reshape(*task_ids.shape, sizes.n_splits, sizes.n_skills)
