"""The interface of a training loss, and the loss of the target tokens."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, Literal, Protocol

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from poly_jax.errors import UserError
from poly_jax.literal_fields import check_literal_fields
from poly_jax.model.one_residual import logsumexp
from poly_jax.model.segments import Segments

Batch = Mapping[str, Any]
Apply = Callable[..., Any]
Terms = dict[str, Float[Array, ""]]
NormalizeBy = Literal["tokens", "examples"]


class Loss(Protocol):
    """A sum of terms. Each is a total over the batch, divided by a number that depends on no parameter.

    Totals and divisors are computed apart, so that a batch can be cut into parts whose totals add up.
    """

    @property
    def needs_choices(self) -> bool:
        """Whether a batch must have `choices` and `labels`."""
        ...

    def totals(self, apply: Apply, batch: Batch) -> Terms:
        """The total of each term, by the term's name.

        Args:
          apply: the model with its parameters and random keys, called as `Transformer` is; a keyword `method`
            names another of its methods.
          batch: the model's batch.
        """
        ...

    def divisors(self, batch: Batch) -> Terms:
        """The divisor of each total."""
        ...


@dataclasses.dataclass(frozen=True)
class TokenLoss:
    """Cross-entropy of the target tokens: the sum over tokens, divided as `normalize_by` says.

    Attributes:
      label_smoothing: eps in `(1 - eps) NLL + (eps / V) sum_v -log p_v`, the form of fairseq that the
        Super-NaturalInstructions recipes use.
      z_loss: weight of log(Z)^2, which keeps the softmax's normaliser near 1 (Mesh TensorFlow, T5X).
      normalize_by: the divisor of the sum. "tokens" gives the mean over target tokens. "examples" divides by
        the number of examples, so that the loss grows with the length of the targets (the SuperNI recipes).
    """

    label_smoothing: float = 0.0
    z_loss: float = 0.0
    normalize_by: NormalizeBy = "tokens"

    def __post_init__(self):
        if not 0 <= self.label_smoothing < 1:
            raise UserError(f"TokenLoss.label_smoothing is {self.label_smoothing}; it must be in [0, 1)")
        check_literal_fields(self)

    @property
    def needs_choices(self) -> bool:
        """False: token losses read no answer choices."""
        return False

    def totals(self, apply: Apply, batch: Batch) -> Terms:
        """The one term, which `total` computes."""
        arrays = [batch[name] for name in ("encoder_input_tokens", "decoder_input_tokens", "task_ids")]
        segments = Segments.of(batch)
        logits = apply(*arrays) if segments is None else apply(*arrays, segments=segments)
        weights = batch["decoder_loss_weights"].astype(jnp.float32)
        return {"tokens": self.total(logits, batch["decoder_target_tokens"], weights)}

    def divisors(self, batch: Batch) -> Terms:
        """The divisor of that term, which `divisor` computes."""
        weights = batch["decoder_loss_weights"].astype(jnp.float32)
        return {"tokens": self.divisor(weights, batch.get("decoder_segment_ids"))}

    def total(
        self,
        logits: Float[Array, "batch length vocab"],
        targets: Int[Array, "batch length"],
        weights: Float[Array, "batch length"],
    ) -> Float[Array, ""]:
        """Sum over all tokens, each times its weight."""
        # Over one axis of tokens, as the output head computes them, XLA writes the gradient over the logits.
        logits = logits.astype(jnp.float32).reshape(-1, logits.shape[-1])
        targets, weights = targets.reshape(-1), weights.reshape(-1)
        log_z = logsumexp(logits)
        losses = log_z - _target_logits(logits, targets)
        if self.label_smoothing:
            uniform = log_z - logits.mean(axis=-1)
            losses = (1 - self.label_smoothing) * losses + self.label_smoothing * uniform
        if self.z_loss:
            losses = losses + self.z_loss * jnp.square(log_z)
        return jnp.sum(losses * weights)

    def divisor(
        self, weights: Float[Array, "batch length"], segments: Int[Array, "batch length"] | None = None
    ) -> Float[Array, ""]:
        """The divisor of the total: the number of target tokens, or of examples that have at least one.

        `segments` gives the examples of the targets where a row holds several.
        """
        if self.normalize_by == "tokens":
            return jnp.sum(weights)
        if segments is None:
            return jnp.sum(jnp.any(weights > 0, axis=-1).astype(jnp.float32))
        # An example's positions are contiguous: it has a first one with a weight, which nothing of the same
        # example with a weight precedes.
        weighted = jnp.where(weights > 0, segments, 0)
        before = jnp.pad(jax.lax.cummax(weighted, axis=1)[:, :-1], ((0, 0), (1, 0)))
        return jnp.sum((weighted > before).astype(jnp.float32))


@jax.custom_vjp
def _target_logits(
    logits: Float[Array, "tokens vocab"], targets: Int[Array, "tokens"]
) -> Float[Array, "tokens"]:
    """The logit of every target, whose gradient is computed in place of that of all logits.

    JAX would scatter it into an array of zeros.
    """
    return jnp.take_along_axis(logits, targets[..., None], axis=-1)[..., 0]


def _forward(
    logits: Float[Array, "tokens vocab"], targets: Int[Array, "tokens"]
) -> tuple[Array, tuple[Array, Array]]:
    return _target_logits(logits, targets), (targets, jnp.arange(logits.shape[-1]))


def _backward(
    kept: tuple[Array, Array], change: Float[Array, "tokens"]
) -> tuple[Float[Array, "tokens vocab"], None]:
    targets, vocabulary = kept
    return jnp.where(targets[..., None] == vocabulary, change[..., None], 0), None


_target_logits.defvjp(_forward, _backward)
