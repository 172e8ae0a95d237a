"""LoRA skills: low-rank updates whose factors, or whose outputs, are mixed."""

import dataclasses
import math
import numbers
from typing import ClassVar, Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from poly_jax.adapters.mixing import mixed_in, mixed_out
from poly_jax.adapters.row_product import row_product
from poly_jax.adapters.skill import Mixed
from poly_jax.counts import check_counts
from poly_jax.errors import UserError
from poly_jax.literal_fields import check_literal_fields
from poly_jax.routing.router import Uniform
from poly_jax.weights.parameter_spec import Initializer, ParameterSpec, uniform_init

Init = Literal["mhr", "kaiming", "gaussian"]


def check_update(skill: str, rank: int, alpha: float, dropout: float) -> None:
    """Raise a UserError that names a setting of a low-rank update that no update can have."""
    check_counts(skill, rank=rank)
    for name, value in (("alpha", alpha), ("dropout", dropout)):
        if not isinstance(value, numbers.Real):
            raise UserError(f"{skill}.{name} is {value!r}; it must be a number")
    if not math.isfinite(alpha):
        raise UserError(f"{skill}.alpha is {alpha}; it must be finite")
    if not 0 <= dropout < 1:
        raise UserError(f"{skill}.dropout is {dropout}; it must be in [0, 1)")


@dataclasses.dataclass(frozen=True)
class LoRA:
    """`y = x W0 + (alpha / rank) (x A) B` with A and B mixed per split (arXiv 2211.03831, eq. 4).

    B starts at 0, so a fresh skill changes nothing.

    Attributes:
      rank: inner dimension of the update.
      alpha: the update is scaled by alpha / rank.
      dropout: probability of dropping an input of the update while training; the frozen map sees all inputs
        (arXiv 2106.09685; PEFT's `lora_dropout`).
      merge_after: whether the outputs of skills are averaged instead of their factors. The output of split q
        is then `(alpha / rank) sum_k w[q,k] (x A[k]) B[q,k]`, with the A of all splits of a skill stacked. No
        term combines one skill's A with another's B; the update's rank is that of all skills together.
      init: the distribution of a fresh A. "mhr" is U(-g, g) / sqrt(d_in) with g = sqrt(1/3), as in the MHR
        paper's code. "kaiming" is U(-1, 1) / sqrt(d_in / splits), as in PEFT's Poly and, with one split, its
        LoRA. "gaussian" is N(0, 1 / rank^2), as in PEFT's LoRA with `init_lora_weights="gaussian"`.
      neutral: value of every parameter of a skill that changes nothing. With both factors at 0 it also stays
        as it is in training.
    """

    neutral: ClassVar[float] = 0.0
    rank: int = 1
    alpha: float = 1.0
    dropout: float = 0.0
    merge_after: bool = False
    init: Init = "mhr"

    def __post_init__(self):
        check_update(type(self).__name__, self.rank, self.alpha, self.dropout)
        check_literal_fields(self)

    def parameters(self, n_splits: int, n_skills: int, d_in: int, d_out: int) -> dict[str, ParameterSpec]:
        """`lora_a` [splits, skills, d_in/splits, rank] and `lora_b` [splits, skills, rank, d_out/splits]."""
        return {
            "lora_a": ParameterSpec(
                (n_splits, n_skills, d_in // n_splits, self.rank),
                self._init(d_in, n_splits),
                ("splits", "skills", "lora_in", "lora_rank"),
            ),
            "lora_b": ParameterSpec(
                (n_splits, n_skills, self.rank, d_out // n_splits),
                jax.nn.initializers.zeros,
                ("splits", "skills", "lora_rank", "lora_out"),
            ),
        }

    def _init(self, d_in: int, n_splits: int) -> Initializer:
        match self.init:
            case "mhr":
                return uniform_init(math.sqrt(1 / 3) / math.sqrt(d_in))
            case "kaiming":
                return uniform_init(1 / math.sqrt(d_in // n_splits))
            case "gaussian":
                return jax.nn.initializers.normal(1 / self.rank)

    def mix(self, parameters: Mixed, weights: Float[Array, "*rows splits skills"]) -> Mixed:
        """`lora_a` [*rows, d_in, rank] and `lora_b` [*rows, rank, d_out], each averaged on its own.

        With `merge_after` the factors of all skills stand side by side, and only B is weighted: `lora_a`
        [d_in, skills * rank], which all rows share, and `lora_b` [*rows, skills * rank, d_out].
        """
        a, b = parameters["lora_a"], parameters["lora_b"]
        if self.merge_after:
            rows = weights.shape[:-2]
            b = jnp.einsum("...hk,hkro->...krho", weights, b).reshape(*rows, a.shape[1] * self.rank, -1)
            return {**self.side_by_side(parameters), "lora_b": b}
        return {"lora_a": mixed_in(weights, a), "lora_b": mixed_out(weights, b)}

    def apply(
        self,
        mixed: Mixed,
        inputs: Float[Array, "batch length d_in"],
        outputs: Float[Array, "batch length d_out"],
        uniform: Uniform | None = None,
        segments: Int[Array, "batch length"] | None = None,
    ) -> Float[Array, "batch length d_out"]:
        """Add the low-rank update to the frozen output, in the output's dtype.

        In packed rows the inner dimensions of all examples of a row stand side by side, and a position keeps
        those of its own: two dense products, without a copy of the factors for every position.
        """
        inputs = self._dropped(inputs, uniform)
        a = mixed["lora_a"].astype(inputs.dtype)
        b = (mixed["lora_b"] * (self.alpha / self.rank)).astype(inputs.dtype)
        if b.ndim == 2:
            # On CPUs, XLA transposes the gradients of factors that batched products share (jax 0.10.2).
            flat = inputs.reshape(-1, inputs.shape[-1])
            return outputs + ((flat @ a) @ b).reshape(outputs.shape)
        if segments is None:
            return outputs + row_product(row_product(inputs, a), b)
        own = jax.nn.one_hot(segments - 1, b.shape[1], dtype=inputs.dtype)[..., None]
        shared = a.ndim == 2
        hidden = own * ((inputs @ a)[:, :, None] if shared else jnp.einsum("bli,bsir->blsr", inputs, a))
        return outputs + jnp.einsum("blsr,bsro->blo", hidden, b)

    def cheaper_by_token(self, n_splits: int, mixes: int) -> bool:
        """Only for averaged outputs, with one split or many mixes in a row.

        A position has `n_splits * skills * rank` columns of skills side by side, and as many weights as one
        more rank would have columns; or `mixes * skills * rank` columns of mixed skills. Factors are always
        mixed first, which benchmarks/mixing_forms.py finds faster, or as fast to within 4%.
        """
        return self.merge_after and (n_splits == 1 or n_splits * (self.rank + 1) < mixes * self.rank)

    def side_by_side(self, parameters: Mixed) -> Mixed:
        """`lora_a` [d_in, skills * rank] and `lora_b` [skills * rank, d_out]."""
        a, b = parameters["lora_a"], parameters["lora_b"]
        rank = a.shape[1] * self.rank
        return {
            "lora_a": a.transpose(0, 2, 1, 3).reshape(-1, rank),
            "lora_b": b.transpose(1, 2, 0, 3).reshape(rank, -1),
        }

    def apply_by_token(
        self,
        stacked: Mixed,
        weights: Float[Array, "batch length splits skills"],
        inputs: Float[Array, "batch length d_in"],
        outputs: Float[Array, "batch length d_out"],
        uniform: Uniform | None = None,
    ) -> Float[Array, "batch length d_out"]:
        """Add `(alpha / rank) sum_k w[q,k] (x A[k]) B[q,k]`, the A of all splits of a skill stacked.

        These are two dense products, of width skills * rank and splits * skills * rank. The outputs of skills
        are averaged, with or without `merge_after`.
        """
        inputs = self._dropped(inputs, uniform)
        a = stacked["lora_a"].astype(inputs.dtype)
        b = (stacked["lora_b"] * (self.alpha / self.rank)).astype(inputs.dtype)
        flat = inputs.reshape(-1, inputs.shape[-1])
        _, _, splits, skills = weights.shape
        each = weights.astype(inputs.dtype).reshape(-1, splits, skills, 1)
        hidden = each * (flat @ a).reshape(-1, 1, skills, self.rank)
        if splits == 1:
            return outputs + (hidden.reshape(len(flat), -1) @ b).reshape(outputs.shape)
        hidden, b = hidden.reshape(len(flat), splits, -1), b.reshape(len(b), splits, -1)
        return outputs + jnp.einsum("nhr,rho->nho", hidden, b).reshape(outputs.shape)

    def _dropped(
        self, inputs: Float[Array, "batch length d_in"], uniform: Uniform | None
    ) -> Float[Array, "batch length d_in"]:
        if uniform is None or not self.dropout:
            return inputs
        keep = uniform(inputs.shape) >= self.dropout
        return jnp.where(keep, inputs / (1 - self.dropout), 0).astype(inputs.dtype)

    def kept(self, mixed: Mixed, dtype: jnp.dtype) -> Mixed:
        """The factors as `apply` uses them; B stays float32 where its scale would round it a second time."""
        exact = math.frexp(self.alpha / self.rank)[0] == 0.5  # A power of two.
        b = mixed["lora_b"]
        return {"lora_a": mixed["lora_a"].astype(dtype), "lora_b": b.astype(dtype) if exact else b}

    def merge(self, mixed: Mixed, kernel: Float[Array, "d_in d_out"]) -> Float[Array, "d_in d_out"]:
        """`W0 + (alpha / rank) A B`, computed in float32 and returned in the kernel's dtype."""
        update = (self.alpha / self.rank) * (mixed["lora_a"] @ mixed["lora_b"])
        return (kernel.astype(jnp.float32) + update).astype(kernel.dtype)

    def averaged(self, n_skills: int) -> "LoRA":
        """LoRA of the same rank; with `merge_after`, of `n_skills` times the rank at the same scale."""
        if not self.merge_after:
            return self
        return dataclasses.replace(self, rank=n_skills * self.rank, alpha=n_skills * self.alpha)

    def average(self, parameters: Mixed) -> Mixed:
        """The means of A and of B; with `merge_after` all factors side by side, since no mean equals them."""
        a, b = parameters["lora_a"], parameters["lora_b"]
        if not self.merge_after:
            return {"lora_a": jnp.mean(a, -3, keepdims=True), "lora_b": jnp.mean(b, -3, keepdims=True)}
        n_skills, d_in, _ = a.shape[-3:]
        a = jnp.moveaxis(a, -3, -2).reshape(*a.shape[:-3], 1, d_in, -1)
        return {"lora_a": a, "lora_b": b.reshape(*b.shape[:-3], 1, -1, b.shape[-1]) / n_skills}
