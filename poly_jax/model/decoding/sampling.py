"""Greedy decoding and temperature sampling with top-k and top-p (nucleus) truncation."""

import math
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from poly_jax.errors import UserError
from poly_jax.model.decoding.largest import largest
from poly_jax.model.decoding.step import PAD_ID, Decoded, Step, check_max_length


class _Progress(NamedTuple):
    position: Int[Array, ""]
    last: Int[Array, "batch"]
    ended: Bool[Array, "batch"]
    tokens: Int[Array, "batch max_length"]
    scores: Float[Array, "batch"]
    cache: Any


def sample(
    step: Step,
    cache: Any,
    batch_size: int,
    max_length: int,
    *,
    rng: PRNGKeyArray | None = None,
    temperature: float = 0.0,
    top_k: int = 0,
    top_p: float = 1.0,
    eos_id: int = 1,
    start_id: int = 0,
) -> Decoded:
    """Decode one output per row, left to right; stop when every row has emitted EOS.

    Args:
      step: the model; it is called with [batch_size] tokens.
      cache: its state before the first token.
      batch_size: rows decoded together.
      max_length: most tokens emitted per row, EOS included and the start token not.
      rng: needed unless temperature is 0. Row i draws from `fold_in(rng, i)`, so that what it draws does not
        depend on the rows beside it.
      temperature: divides the logits; 0 is greedy (the lowest id wins a tie).
      top_k: draw among the k most probable tokens only (the lowest ids of a tie); 0 for all.
      top_p: draw among the fewest most probable tokens whose probabilities, after temperature and top-k, add
        up to top_p (Holtzman et al. 2020, "The Curious Case of Neural Text Degeneration"); 1 for all. The
        order of the three is that of Hugging Face's `generate`.
      eos_id: the token that ends a row. With an id outside the vocabulary, such as -1, every row runs to
        max_length.
      start_id: the token fed first.

    Returns:
      tokens [batch_size, max_length] and scores [batch_size]. A score is under the model's own distribution,
      whatever temperature, top_k and top_p are: it is what scoring the same tokens as a target gives.

    Raises:
      UserError: a setting is out of its range, or sampling was asked for without rng.
    """
    check_max_length(max_length)
    check_drawing(temperature, top_k, top_p)
    if temperature == 0:
        row_keys = None
    elif rng is None:
        raise UserError(f"temperature={temperature:g} draws at random: give rng, or temperature 0 for greedy")
    else:
        row_keys = jax.vmap(jax.random.fold_in, in_axes=(None, 0))(rng, jnp.arange(batch_size))
    draw_one = partial(draw, temperature=temperature, top_k=top_k, top_p=top_p)

    def unfinished(progress: _Progress) -> Bool[Array, ""]:
        return (progress.position < max_length) & ~jnp.all(progress.ended)

    def advance(progress: _Progress) -> _Progress:
        logits, cache = step(progress.last, progress.cache)
        logits = logits.astype(jnp.float32)
        if row_keys is None:
            chosen = largest(logits, 1)[1][:, 0]
        else:
            keys = jax.vmap(jax.random.fold_in, in_axes=(0, None))(row_keys, progress.position)
            chosen = jax.vmap(draw_one)(keys, logits)
        log_probs = jnp.take_along_axis(jax.nn.log_softmax(logits), chosen[:, None], axis=-1)[:, 0]
        emitted = jnp.where(progress.ended, PAD_ID, chosen).astype(jnp.int32)
        return _Progress(
            position=progress.position + 1,
            last=emitted,
            ended=progress.ended | (emitted == eos_id),
            tokens=progress.tokens.at[:, progress.position].set(emitted),
            scores=progress.scores + jnp.where(progress.ended, 0.0, log_probs),
            cache=cache,
        )

    start = _Progress(
        position=jnp.zeros((), jnp.int32),
        last=jnp.full((batch_size,), start_id, jnp.int32),
        ended=jnp.zeros((batch_size,), bool),
        tokens=jnp.full((batch_size, max_length), PAD_ID, jnp.int32),
        scores=jnp.zeros((batch_size,), jnp.float32),
        cache=cache,
    )
    end = jax.lax.while_loop(unfinished, advance, start)
    return Decoded(end.tokens, end.scores)


def draw(
    key: PRNGKeyArray, logits: Float[Array, "vocab"], *, temperature: float, top_k: int, top_p: float
) -> Int[Array, ""]:
    """Draw a token after temperature, top-k and top-p in that order."""
    kept, ids = logits / temperature, jnp.arange(logits.size)
    if 0 < top_k < logits.size:
        kept, ids = largest(kept, top_k)
    if top_p < 1:
        kept = nucleus(kept, top_p)
    return ids[jax.random.categorical(key, kept)]


def nucleus(logits: Float[Array, "vocab"], top_p: float) -> Float[Array, "vocab"]:
    """Set to -inf all but the fewest most probable tokens whose probabilities add up to top_p or more.

    Tokens as probable as the last of these stay too. The least log-probability that stays is found by
    bisection, which for a whole vocabulary is far faster than sorting it.
    """
    log_probs = jax.nn.log_softmax(logits)
    probs = jnp.exp(log_probs)

    def halve(_: Int[Array, ""], bounds: tuple[Array, Array]) -> tuple[Array, Array]:
        low, high = bounds
        middle = (low + high) / 2
        enough = jnp.sum(probs, where=log_probs >= middle) >= top_p
        return jnp.where(enough, middle, low), jnp.where(enough, high, middle)

    best = jnp.max(log_probs)
    # exp(-104) is 0 in float32, and 104 / 2**32 is finer than float32 logits are.
    least, _ = jax.lax.fori_loop(0, 32, halve, (best - 104, best))
    return jnp.where(log_probs >= least, logits, -jnp.inf)


def check_drawing(temperature: float, top_k: int, top_p: float) -> None:
    """Raise `UserError` unless tokens can be drawn with these settings."""
    if not 0 <= temperature < math.inf:
        raise UserError(f"temperature={temperature:g} is not 0 (greedy) or a positive number")
    if top_k < 0:
        raise UserError(f"top_k={top_k} is negative; give 0 to draw from the whole vocabulary")
    if not 0 < top_p <= 1:
        raise UserError(
            f"top_p={top_p:g} is not above 0 and at most 1; give 1 to draw from the whole vocabulary"
        )
