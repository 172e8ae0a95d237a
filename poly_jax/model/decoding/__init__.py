"""Turning a one-token step function into whole outputs: greedy, sampled, or the best few by beam search."""

from poly_jax.model.decoding.beams import beam_search
from poly_jax.model.decoding.sampling import sample
from poly_jax.model.decoding.step import Decoded, Step

__all__ = ["Decoded", "Step", "beam_search", "sample"]
