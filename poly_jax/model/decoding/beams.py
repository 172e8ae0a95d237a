"""Beam search: the few best outputs of every row, by length-penalised log-probability."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from poly_jax.errors import UserError
from poly_jax.model.decoding.largest import largest
from poly_jax.model.decoding.step import PAD_ID, Decoded, Step, check_max_length


class _Hypotheses(NamedTuple):
    """Best first along beams. A slot that holds no hypothesis scores -inf."""

    tokens: Int[Array, "batch beams max_length"]
    scores: Float[Array, "batch beams"]


class _Progress(NamedTuple):
    length: Int[Array, ""]
    running: _Hypotheses  # not yet ended; scored by the plain sum of log-probabilities
    finished: _Hypotheses  # ended; scored with the length penalty
    improvable: Bool[Array, "batch"]
    last: Int[Array, "rows"]
    cache: Any


def beam_search(
    step: Step,
    cache: Any,
    batch_size: int,
    n_beams: int,
    max_length: int,
    *,
    reorder: Callable[[Any, Int[Array, "rows"]], Any],
    length_penalty: float = 1.0,
    eos_id: int = 1,
    start_id: int = 0,
) -> Decoded:
    """Find the n_beams best outputs of every row of a batch.

    Follows `generate(num_beams=n_beams, early_stopping=False)` of Hugging Face transformers 5.23. A step
    takes the 2 * n_beams best continuations of the running beams. Of these, the ones that end and rank among
    the first n_beams compete for the n_beams finished slots, and the n_beams best that do not end run on.
    At max_length all end. A row is settled once its slots are full and its best running beam, at its
    *present* length, does not beat the worst of them: with a positive length_penalty a better, longer output
    can be missed, as it is there. Three differences of form: the start token is not returned, padding follows
    EOS (there it is EOS again where the padding id is 0), and a slot without an output scores -inf.

    Args:
      step: the model; it is called with batch_size * n_beams tokens, the beams of a row adjacent.
      cache: its state before the first token, of all beams.
      batch_size: rows decoded together.
      n_beams: outputs kept, and returned, per row.
      max_length: most tokens emitted per output, EOS included and the start token not.
      reorder: takes the cache and the index [batch_size * n_beams] of the row that each row goes on from.
        Indices stay among a row's own beams, so what these share (the encoder's keys and values) can stay.
      length_penalty: an output's score is its summed log-probability / (emitted tokens, EOS included and the
        start token not) ** length_penalty. Above 0 favours long outputs, 0 ranks by probability.
      eos_id: the token that ends an output. With an id outside the vocabulary, such as -1, all run to
        max_length.
      start_id: the token fed first.

    Returns:
      tokens [batch_size, n_beams, max_length] and scores [batch_size, n_beams], best first. Where fewer than
      n_beams outputs were found, the other slots are padding with score -inf.

    Raises:
      UserError: a setting is out of its range.
    """
    check_max_length(max_length)
    check_beams(n_beams, length_penalty)
    # A table, because float32 powers on a device are a few ulp off.
    divisors = jnp.asarray(np.arange(max_length + 1, dtype=np.float64).clip(1) ** length_penalty, jnp.float32)
    first_row = n_beams * jnp.arange(batch_size)[:, None]
    may_finish = jnp.arange(2 * n_beams) < n_beams

    def unfinished(progress: _Progress) -> Bool[Array, ""]:
        return (progress.length < max_length) & jnp.any(progress.improvable)

    def advance(progress: _Progress) -> _Progress:
        logits, cache = step(progress.last, progress.cache)
        log_probs = jax.nn.log_softmax(logits.astype(jnp.float32)).reshape(batch_size, n_beams, -1)
        candidates, parents = _extend(progress.running, log_probs, progress.length)
        length = progress.length + 1
        newest = candidates.tokens[:, :, progress.length]
        ends = (newest == eos_id) | (length == max_length)

        finishing = candidates.scores / divisors[length]
        finishing = jnp.where(ends & may_finish & progress.improvable[:, None], finishing, -jnp.inf)
        contenders = jax.tree.map(
            lambda *sides: jnp.concatenate(sides, axis=1),
            progress.finished,
            _Hypotheses(candidates.tokens, finishing),
        )
        finished, _ = _best(contenders, n_beams)

        running, places = _best(
            candidates._replace(scores=jnp.where(ends, -jnp.inf, candidates.scores)), n_beams
        )
        last = jnp.take_along_axis(newest, places, axis=1)
        rows = first_row + jnp.take_along_axis(parents, places, axis=1)
        hope = running.scores[:, 0] / divisors[length]
        return _Progress(
            length=length,
            running=running,
            finished=finished,
            improvable=progress.improvable & (hope > finished.scores[:, -1]),
            last=last.reshape(-1),
            cache=reorder(cache, rows.reshape(-1)),
        )

    nothing = _Hypotheses(
        tokens=jnp.full((batch_size, n_beams, max_length), PAD_ID, jnp.int32),
        scores=jnp.full((batch_size, n_beams), -jnp.inf, jnp.float32),
    )
    start = _Progress(
        length=jnp.zeros((), jnp.int32),
        # All beams hold the start token alone, so all but the first start with probability 0.
        running=nothing._replace(scores=nothing.scores.at[:, 0].set(0.0)),
        finished=nothing,
        improvable=jnp.ones((batch_size,), bool),
        last=jnp.full((batch_size * n_beams,), start_id, jnp.int32),
        cache=cache,
    )
    end = jax.lax.while_loop(unfinished, advance, start)
    return Decoded(end.finished.tokens, end.finished.scores)


def _extend(
    running: _Hypotheses, log_probs: Float[Array, "batch beams vocab"], length: Int[Array, ""]
) -> tuple[_Hypotheses, Int[Array, "batch 2*beams"]]:
    """The 2 * beams best one-token continuations, and the beam that each continues.

    Twice the beams, because at most one continuation per beam is EOS: at least `beams` of them run on.
    """
    batch_size, n_beams, vocab_size = log_probs.shape
    totals = (running.scores[:, :, None] + log_probs).reshape(batch_size, n_beams * vocab_size)
    scores, chosen = largest(totals, 2 * n_beams)
    parents, newest = jnp.divmod(chosen, vocab_size)
    tokens = jnp.take_along_axis(running.tokens, parents[:, :, None], axis=1)
    return _Hypotheses(tokens.at[:, :, length].set(newest), scores), parents


def _best(hypotheses: _Hypotheses, n: int) -> tuple[_Hypotheses, Int[Array, "batch n"]]:
    """The n best hypotheses of every row, best first, and their places among the given ones."""
    scores, places = jax.lax.top_k(hypotheses.scores, n)
    return _Hypotheses(jnp.take_along_axis(hypotheses.tokens, places[:, :, None], axis=1), scores), places


def check_beams(n_beams: int, length_penalty: float) -> None:
    """Raise `UserError` unless beams can be kept and ranked with these settings."""
    if n_beams < 1:
        raise UserError(f"n_beams={n_beams} keeps no output; give 1 or more")
    if not math.isfinite(length_penalty):
        raise UserError(f"length_penalty={length_penalty:g} is not a finite number")
