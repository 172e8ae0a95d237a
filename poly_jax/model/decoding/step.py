"""The step function that every decoding loop calls, and the result that it returns."""

from collections.abc import Callable
from typing import Any, NamedTuple

from jaxtyping import Array, Float, Int

from poly_jax.errors import UserError

PAD_ID = 0


# One step of the decoder: given the last token of every row and the cache, the logits of the next token and
# the cache with that last token in it. Logits may be of any float dtype; a token with logit -inf is never
# emitted. The cache is any PyTree of arrays whose structure, shapes and dtypes stay as they are given.
Step = Callable[[Int[Array, "rows"], Any], tuple[Float[Array, "rows vocab"], Any]]


class Decoded(NamedTuple):
    """Decoded outputs.

    tokens: the ids after the start token, up to and with EOS, then padding (0).
    scores: float32. From `sample`, the sum of the log-probabilities of the emitted tokens, EOS included; from
      `beam_search`, that sum over (number of emitted tokens) ** length_penalty.

    `outputs` is [batch] from `sample` and [batch, beams] from `beam_search`.
    """

    tokens: Int[Array, "*outputs max_length"]
    scores: Float[Array, "*outputs"]


def check_max_length(max_length: int) -> None:
    """Raise `UserError` unless at least one token may be emitted."""
    if max_length < 1:
        raise UserError(f"max_length={max_length} leaves nothing to decode; give 1 or more tokens")
