"""Rank classification: which of several given targets a model finds most likely for an input."""

from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from poly_jax.model.scoring import sequence_scores
from poly_jax.model.transformer import Transformer


def present(choices: Int[Array, "*batch choices length"]) -> Bool[Array, "*batch choices"]:
    """A mask of the choices that exist: one without tokens fills up a row with fewer choices than others."""
    return jnp.any(choices > 0, axis=-1)


def scores_of_choices(
    logits: Float[Array, "batch choices length vocab"],
    choices: Int[Array, "batch choices length"],
    length_norm: float = 1.0,
) -> Float[Array, "batch choices"]:
    """Sum of a choice's log-probabilities over (number of its tokens) ^ length_norm; 0 for an absent choice.

    T-Few (arXiv 2205.05638, section 3.2). The end of sequence is a token of the choice, padding is not.
    """
    batch, count, length = choices.shape
    scores = sequence_scores(
        logits.reshape(batch * count, length, -1),
        choices.reshape(batch * count, length),
        (choices > 0).reshape(batch * count, length).astype(jnp.float32),
        length_norm,
    )
    return scores.reshape(batch, count)


def choice_scores(
    model: Transformer,
    parameters: dict[str, Any],
    encoder_input_tokens: Int[Array, "batch inputs"],
    choices: Int[Array, "batch choices length"],
    task_ids: Int[Array, "*rows"] | None,
    length_norm: float = 1.0,
) -> Float[Array, "batch choices"]:
    """Score each choice of a row by its log-probability, in evaluation mode; an absent choice has -inf.

    Choices are tokens up to and with the end of sequence, then padding (0). Each input is encoded once. A
    plain function of arrays: jit it with `model` and `length_norm` static, or vmap it over stacked adapters.
    """
    logits = model.apply(
        {"params": parameters}, encoder_input_tokens, choices, task_ids, method="choice_logits"
    )
    assert isinstance(logits, jnp.ndarray)
    return jnp.where(present(choices), scores_of_choices(logits, choices, length_norm), -jnp.inf)
