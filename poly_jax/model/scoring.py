"""Log-probabilities of given targets, and the decoder inputs that predict them."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int


def decoder_inputs(targets: Int[Array, "*rows length"], start_id: int) -> Int[Array, "*rows length"]:
    """The input of the decoder that predicts targets: the start id, then every target token but the last."""
    before = [(0, 0)] * (targets.ndim - 1) + [(1, 0)]
    return jnp.pad(targets[..., :-1], before, constant_values=start_id)


def token_log_probs(
    logits: Float[Array, "batch length vocab"], targets: Int[Array, "batch length"]
) -> Float[Array, "batch length"]:
    """The log-probability of every target token, in float32."""
    log_probs = jax.nn.log_softmax(logits.astype(jnp.float32), axis=-1)
    return jnp.take_along_axis(log_probs, targets[..., None], axis=-1)[..., 0]


def sequence_scores(
    logits: Float[Array, "batch length vocab"],
    targets: Int[Array, "batch length"],
    weights: Float[Array, "batch length"],
    length_norm: float = 0.0,
) -> Float[Array, "batch"]:
    """Sum of the targets' log-probabilities over (number of target tokens) ^ length_norm.

    `length_norm` 0 is T5X's `score_batch`; 1 is the mean that rank classification uses (T-Few, arXiv
    2205.05638, section 3.2).
    """
    total = jnp.sum(token_log_probs(logits, targets) * weights, axis=-1)
    return total / jnp.maximum(weights.sum(axis=-1), 1.0) ** length_norm
