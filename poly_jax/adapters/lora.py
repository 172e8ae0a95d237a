"""LoRA skills: low-rank updates whose factors are mixed before they are multiplied."""

import dataclasses
import math

import gin
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from poly_jax.adapters.skill import Mixed
from poly_jax.errors import UserError
from poly_jax.parameters import ParameterSpec, uniform_init


@gin.configurable
@dataclasses.dataclass(frozen=True)
class LoRA:
    """`y = x W0 + (alpha / rank) (x A) B` with A and B mixed per split (arXiv 2211.03831, eq. 4).

    A is drawn from U(-g/sqrt(d_in), g/sqrt(d_in)) with g = sqrt(1/3) and B starts at 0, so a fresh skill
    changes nothing.

    Attributes:
      rank: inner dimension of the update.
      alpha: the update is scaled by alpha / rank.
    """

    rank: int = 1
    alpha: float = 1.0

    def __post_init__(self):
        if self.rank < 1:
            raise UserError(f"LoRA.rank is {self.rank}; it must be at least 1")

    def parameters(self, n_splits: int, n_skills: int, d_in: int, d_out: int) -> dict[str, ParameterSpec]:
        """`lora_a` [splits, skills, d_in/splits, rank] and `lora_b` [splits, skills, rank, d_out/splits]."""
        return {
            "lora_a": ParameterSpec(
                (n_splits, n_skills, d_in // n_splits, self.rank),
                uniform_init(math.sqrt(1 / 3) / math.sqrt(d_in)),
                ("splits", "skills", "lora_in", "lora_rank"),
            ),
            "lora_b": ParameterSpec(
                (n_splits, n_skills, self.rank, d_out // n_splits),
                jax.nn.initializers.zeros,
                ("splits", "skills", "lora_rank", "lora_out"),
            ),
        }

    def mix(self, parameters: Mixed, weights: Float[Array, "*rows splits skills"]) -> Mixed:
        """`lora_a` [*rows, d_in, rank] and `lora_b` [*rows, rank, d_out], each averaged on its own."""
        a = jnp.einsum("...hk,hkir->...hir", weights, parameters["lora_a"])
        b = jnp.einsum("...hk,hkro->...rho", weights, parameters["lora_b"])
        rows = weights.shape[:-2]
        return {
            "lora_a": a.reshape(*rows, -1, self.rank),
            "lora_b": b.reshape(*rows, self.rank, -1),
        }

    def apply(
        self,
        mixed: Mixed,
        inputs: Float[Array, "batch length d_in"],
        outputs: Float[Array, "batch length d_out"],
    ) -> Float[Array, "batch length d_out"]:
        """Adds the low-rank update to the frozen output, in the output's dtype."""
        a = mixed["lora_a"].astype(inputs.dtype)
        b = (mixed["lora_b"] * (self.alpha / self.rank)).astype(inputs.dtype)
        if a.ndim == 2:
            return outputs + (inputs @ a) @ b
        low = jnp.einsum("bli,bir->blr", inputs, a)
        return outputs + jnp.einsum("blr,bro->blo", low, b)

    def merge(self, mixed: Mixed, kernel: Float[Array, "d_in d_out"]) -> Float[Array, "d_in d_out"]:
        """`W0 + (alpha / rank) A B`, computed in float32 and returned in the kernel's dtype."""
        update = (self.alpha / self.rank) * (mixed["lora_a"] @ mixed["lora_b"])
        return (kernel.astype(jnp.float32) + update).astype(kernel.dtype)
