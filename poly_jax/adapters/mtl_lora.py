"""MTL-LoRA skills: one A for all tasks, a small matrix of each task, and a mix of several B."""

import dataclasses
import math

import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from poly_jax.adapters.lora import LoRA, check_update
from poly_jax.adapters.mixing import mixed_out
from poly_jax.adapters.skill import Mixed
from poly_jax.routing.router import Uniform
from poly_jax.weights.parameter_spec import ParameterSpec, uniform_init


@dataclasses.dataclass(frozen=True)
class MTLLoRA:
    """`y = x W0 + (alpha / rank) x A L[t] sum_k w[t,k] B[k]` for task t (MTL-LoRA, arXiv 2410.09437).

    The skills of the inventory are the B[k]. All of them share A, and L[t] is the task's own matrix. B starts
    at 0, so a fresh skill changes nothing, and L[t] starts as the identity.

    Attributes:
      rank: inner dimension of the update.
      alpha: the update is scaled by alpha / rank.
      dropout: probability of dropping an input of the update while training.
    """

    rank: int = 1
    alpha: float = 1.0
    dropout: float = 0.0

    def __post_init__(self):
        check_update(type(self).__name__, self.rank, self.alpha, self.dropout)

    @property
    def of_one_task(self) -> LoRA:
        """The LoRA with the factors A and L[t] B, which is the adapter of one task."""
        return LoRA(self.rank, self.alpha, self.dropout, init="kaiming")

    def parameters(self, n_splits: int, n_skills: int, d_in: int, d_out: int) -> dict[str, ParameterSpec]:
        """`lora_a` [splits, 1, d_in/splits, rank] and `lora_b` [splits, skills, rank, d_out/splits].

        A is drawn from U(-1, 1) / sqrt(d_in), as in AdapterHub and the authors' code.
        """
        specs = self.of_one_task.parameters(n_splits, n_skills, d_in, d_out)
        a = specs["lora_a"]
        shape = (n_splits, 1, *a.shape[2:])
        return specs | {"lora_a": ParameterSpec(shape, uniform_init(1 / math.sqrt(d_in)), a.axes)}

    def task_parameters(self, n_tasks: int) -> dict[str, ParameterSpec]:
        """`lora_lambda` [1, tasks, rank, rank], the identity for every task."""
        shape = (1, n_tasks, self.rank, self.rank)
        axes = ("splits", "tasks", "lora_rank", "lora_rank_out")
        return {"lora_lambda": ParameterSpec(shape, _identities, axes)}

    def mix(self, parameters: Mixed, weights: Float[Array, "*rows splits skills"]) -> Mixed:
        """`lora_a` [d_in, rank], which all rows share, and `lora_b` [*rows, rank, d_out], the mix of B."""
        return {
            "lora_a": parameters["lora_a"].reshape(-1, self.rank),
            "lora_b": mixed_out(weights, parameters["lora_b"]),
        }

    def with_task(
        self, mixed: Mixed, own: Mixed, chosen: Float[Array, "*rows tasks"]
    ) -> dict[str, Float[Array, "..."]]:
        """`lora_a` unchanged, and `lora_b` multiplied by the matrix of each row's task."""
        matrix = jnp.einsum("...t,tpr->...pr", chosen, own["lora_lambda"][0])
        return {**mixed, "lora_b": jnp.einsum("...pr,...ro->...po", matrix, mixed["lora_b"])}

    def apply(
        self,
        mixed: Mixed,
        inputs: Float[Array, "batch length d_in"],
        outputs: Float[Array, "batch length d_out"],
        uniform: Uniform | None = None,
        segments: Int[Array, "batch length"] | None = None,
    ) -> Float[Array, "batch length d_out"]:
        """Add the low-rank update to the frozen output, as LoRA does."""
        return self.of_one_task.apply(mixed, inputs, outputs, uniform, segments)

    def kept(self, mixed: Mixed, dtype: jnp.dtype) -> Mixed:
        """The factors as `apply` uses them; see `LoRA.kept`."""
        return self.of_one_task.kept(mixed, dtype)

    def merge(self, mixed: Mixed, kernel: Float[Array, "d_in d_out"]) -> Float[Array, "d_in d_out"]:
        """`W0 + (alpha / rank) A L B`, in the kernel's dtype."""
        return self.of_one_task.merge(mixed, kernel)

    def averaged(self, n_skills: int) -> LoRA:
        """A LoRA, because a task without a matrix of its own has the identity in its place."""
        return self.of_one_task

    def average(self, parameters: Mixed) -> Mixed:
        """The shared A unchanged, and the mean of all B."""
        return {"lora_a": parameters["lora_a"], "lora_b": jnp.mean(parameters["lora_b"], -3, keepdims=True)}


def _identities(
    key: PRNGKeyArray, shape: tuple[int, ...], dtype=jnp.float32
) -> Float[Array, "1 tasks rank rank"]:
    return jnp.broadcast_to(jnp.eye(shape[-1], dtype=dtype), shape)
