"""Training losses over target tokens."""

import dataclasses
from typing import Literal

import gin
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int

from poly_jax.errors import UserError


@gin.configurable
@dataclasses.dataclass(frozen=True)
class TokenLoss:
    """Cross-entropy of the target tokens, summed over tokens and divided by what `normalize_by` says.

    Attributes:
      label_smoothing: eps in `(1 - eps) NLL + (eps / V) sum_v -log p_v`, the form of fairseq that the
        Super-NaturalInstructions recipes use.
      z_loss: weight of log(Z)^2, which keeps the softmax's normaliser near 1 (Mesh TensorFlow, T5X).
      normalize_by: "tokens" is the mean over target tokens; "examples" divides the sum by the number of
        examples, so that the loss grows with the length of the targets (the SuperNI recipes).
    """

    label_smoothing: float = 0.0
    z_loss: float = 0.0
    normalize_by: Literal["tokens", "examples"] = "tokens"

    def __post_init__(self):
        if not 0 <= self.label_smoothing < 1:
            raise UserError(f"TokenLoss.label_smoothing is {self.label_smoothing}; it must be in [0, 1)")
        if self.normalize_by not in ("tokens", "examples"):
            raise UserError(f"TokenLoss.normalize_by is {self.normalize_by!r}; use 'tokens' or 'examples'")

    def total(
        self,
        logits: Float[Array, "batch length vocab"],
        targets: Int[Array, "batch length"],
        weights: Float[Array, "batch length"],
    ) -> Float[Array, ""]:
        """Sum over all tokens, each times its weight."""
        logits = logits.astype(jnp.float32)
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, targets)
        log_z = jax.nn.logsumexp(logits, axis=-1)
        if self.label_smoothing:
            uniform = log_z - logits.mean(axis=-1)
            losses = (1 - self.label_smoothing) * losses + self.label_smoothing * uniform
        if self.z_loss:
            losses = losses + self.z_loss * jnp.square(log_z)
        return jnp.sum(losses * weights)

    def divisor(self, weights: Float[Array, "batch length"]) -> Float[Array, ""]:
        """What the total is divided by: target tokens, or examples with at least one."""
        if self.normalize_by == "tokens":
            return jnp.sum(weights)
        return jnp.sum(jnp.any(weights > 0, axis=-1).astype(jnp.float32))
