"""Predicts outputs for the rows of a batch, each with the adapters of its own task."""

import dataclasses
from typing import Any

import jax.numpy as jnp
from flax.core import unfreeze
from jaxtyping import Array, Int, PRNGKeyArray

from poly_jax.errors import UserError
from poly_jax.model.context import Cursor
from poly_jax.model.decoding import Decoded, beam_search, sample
from poly_jax.model.decoding.beams import check_beams
from poly_jax.model.decoding.sampling import check_drawing
from poly_jax.model.decoding.step import check_max_length
from poly_jax.model.transformer import Transformer


@dataclasses.dataclass(frozen=True)
class Decoding:
    """The way to choose outputs: greedily, unless beams or a temperature are set.

    Attributes:
      max_length: largest number of tokens in an output, the end of sequence included.
      n_beams: number of beams; 1 decodes token by token without a search.
      length_penalty: beams are ranked by log-probability / length ** length_penalty.
      temperature: temperature at which tokens are sampled; 0 is greedy.
      top_k: number of likeliest tokens among which to sample; 0 is all.
      top_p: probability that the likeliest tokens, among which to sample, reach together; 1 is all tokens.

    Raises:
      UserError: a value is out of its range, or beams and a temperature are both set.
    """

    max_length: int = 128
    n_beams: int = 1
    length_penalty: float = 1.0
    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0

    def __post_init__(self) -> None:
        check_max_length(self.max_length)
        check_beams(self.n_beams, self.length_penalty)
        check_drawing(self.temperature, self.top_k, self.top_p)
        if self.n_beams > 1 and self.temperature > 0:
            raise UserError(
                f"n_beams={self.n_beams} and temperature={self.temperature:g} exclude each other: beams draw "
                "nothing; give temperature 0 for beams, or n_beams 1 to sample"
            )


def generate(
    model: Transformer,
    parameters: dict[str, Any],
    encoder_input_tokens: Int[Array, "batch inputs"],
    task_ids: Int[Array, "*rows"] | None,
    decoding: Decoding,
    rng: PRNGKeyArray | None = None,
    eos_id: int | None = None,
) -> Decoded:
    """Decode every row. Jit it with `model` and `decoding` static.

    The input is encoded once, and every row's adapters are mixed once, not at every token. Rows of one task
    share one mix, which is several times smaller to read at each token.

    Args:
      model: the network; it decodes in evaluation mode.
      parameters: its parameters.
      encoder_input_tokens: the inputs, padded with 0.
      task_ids: the task of each row [batch], or of all rows []; None for a bare T5.
      decoding: way to choose outputs.
      rng: random key of a decoding that samples.
      eos_id: the token that ends an output; None for the model's own.

    Returns:
      With one beam tokens [batch, max_length] and scores [batch] (summed log-probabilities); with n_beams,
      tokens [batch, n_beams, max_length] and scores [batch, n_beams], best first.
    """
    model = dataclasses.replace(model, train=False)
    variables = {"params": parameters}
    batch = encoder_input_tokens.shape[0]
    encoded = model.apply(variables, encoder_input_tokens, task_ids, method="encode")

    def call(variables, tokens, position, holders):
        logits, changed = model.apply(
            variables,
            encoded,
            encoder_input_tokens,
            tokens.reshape(batch, decoding.n_beams),
            Cursor(position, decoding.max_length, holders),
            task_ids,
            method="decode_step",
            mutable=["cache", "prefill"],
        )
        return logits.reshape(batch * decoding.n_beams, -1), changed

    ends = {
        "eos_id": model.config.eos_id if eos_id is None else eos_id,
        "start_id": model.config.decoder_start_id,
    }
    started = jnp.full((batch * decoding.n_beams,), ends["start_id"], jnp.int32)
    holders = None
    if decoding.n_beams > 1:
        holders = jnp.zeros((batch, decoding.n_beams, decoding.max_length), jnp.int32)
    _, first = call(variables, started, jnp.array(0), holders)
    first = unfreeze(first)
    kept = {**variables, "prefill": first["prefill"]}

    def step(tokens, cache):
        position, holders, keys_and_values = cache
        if holders is not None:
            holders = holders.at[:, :, position].set(jnp.arange(decoding.n_beams))
        logits, changed = call({**kept, "cache": keys_and_values}, tokens, position, holders)
        return logits, (position + 1, holders, unfreeze(changed)["cache"])

    cache = (jnp.array(0), holders, first["cache"])
    if decoding.n_beams > 1:
        return beam_search(
            step,
            cache,
            batch,
            decoding.n_beams,
            decoding.max_length,
            reorder=_follow,
            length_penalty=decoding.length_penalty,
            **ends,
        )
    return sample(
        step,
        cache,
        batch,
        decoding.max_length,
        rng=rng,
        temperature=decoding.temperature,
        top_k=decoding.top_k,
        top_p=decoding.top_p,
        **ends,
    )


def _follow(cache: Any, rows: Int[Array, "batch*beams"]) -> Any:
    """The cache of beams that go on from these: keys and values stay, and each beam gets the other's past."""
    position, holders, keys_and_values = cache
    followed = jnp.take(holders.reshape(len(rows), -1), rows, axis=0).reshape(holders.shape)
    return position, followed, keys_and_values
