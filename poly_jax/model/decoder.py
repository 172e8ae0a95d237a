"""T5's decoder, for whole targets and for one position at a time."""

import flax.linen as nn
import jax.numpy as jnp
from flax.linen import partitioning
from jaxtyping import Array, Bool, Float, Int

from poly_jax.model.attention import Attention, attention_input
from poly_jax.model.config import T5Config
from poly_jax.model.context import Context, Cursor
from poly_jax.model.fan_out import FanOut
from poly_jax.model.float32_product import float32_product
from poly_jax.model.mlp import MLP
from poly_jax.model.normalization import RMSNorm
from poly_jax.model.relative_position import RelativePositionBias
from poly_jax.model.route import Route
from poly_jax.model.stack import run_layers
from poly_jax.weights.sharding import constrain


def _positions(
    length: int, cursor: Cursor | None
) -> tuple[Int[Array, "queries"], Int[Array, "keys_or_cache"]]:
    """The positions of queries and keys: all of the target's, or one for all beams over the cache."""
    if cursor is not None:
        return cursor.position[None], jnp.repeat(jnp.arange(cursor.length), length)
    return jnp.arange(length), jnp.arange(length)


def _own_past(holders: Int[Array, "batch beams length"]) -> Bool[Array, "batch 1 beams length*beams"]:
    """Whether a key of the cache is in a beam's own past."""
    own = holders[..., None] == jnp.arange(holders.shape[1])
    return own.reshape(*holders.shape[:2], -1)[:, None]


def _bias(context: Context, length: int, cursor: Cursor | None) -> Float[Array, "1 heads queries keys"]:
    """The position bias of the module that calls this."""
    bias = RelativePositionBias(context.config, bidirectional=False, name="relpos_bias")
    return bias(*_positions(length, cursor))


class DecoderLayer(nn.Module):
    """Self-attention, cross-attention and MLP, each behind a norm and a residual."""

    context: Context

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "batch length embed"],
        encoded: FanOut,
        route: Route | None,
        mask: Bool[Array, "#batch 1 length keys"],
        cross_mask: Bool[Array, "batch 1 #length inputs"],
        bias: Float[Array, "1 heads length keys"] | None,
        cursor: Cursor | None,
    ) -> tuple[Float[Array, "batch length embed"], None]:
        """The next layer's input, and nothing for a scan to stack."""
        context, drop = self.context, self.context.dropout(-2)
        route = context.routed(route, "block", "decoder")
        if context.config.relative_bias_in_layers:
            bias = _bias(context, x.shape[1], cursor)
        y = RMSNorm(name="pre_self_attention_layer_norm")(x)
        attention = Attention(context, "decoder/self_attention", name="self_attention")
        x = x + drop(attention(y, None, route, mask, bias, cursor))
        y = RMSNorm(name="pre_cross_attention_layer_norm")(x)
        name = "encoder_decoder_attention"
        cross = Attention(context, f"decoder/{name}", name=name)
        x = x + drop(cross(y, encoded, route, cross_mask, cursor=cursor))
        y = RMSNorm(name="pre_mlp_layer_norm")(x)
        y = MLP(context, "decoder/mlp", name="mlp")(y, route, cursor)
        return constrain(x + drop(y), "batch", "length", "embed"), None


class Head(nn.Module):
    """Untied output head: logits in float32."""

    config: T5Config

    @nn.compact
    def __call__(self, x: Float[Array, "batch length embed"]) -> Float[Array, "batch length vocab"]:
        """Logits over the vocabulary."""
        init = nn.initializers.variance_scaling(1.0, "fan_in", "truncated_normal")
        shape = (x.shape[-1], self.config.vocab_size)
        kernel = partitioning.param_with_axes("kernel", init, shape, axes=("embed", "vocab"))
        return float32_product("bld,dv->blv", x, kernel.astype(x.dtype))


class Decoder(nn.Module):
    """A stack of decoder layers over embedded tokens, with the output head where that is not tied."""

    context: Context

    @nn.compact
    def __call__(
        self,
        embedded: Float[Array, "batch length embed"],
        encoded: Float[Array, "batch inputs embed"],
        route: Route | None,
        cross_mask: Bool[Array, "batch 1 #length inputs"],
        cursor: Cursor | None = None,
        padding_mask: Bool[Array, "batch 1 length length"] | None = None,
    ) -> Float[Array, "batch length embed_or_vocab"]:
        """Logits, or where the head is tied to the embedding the normalised output that goes into it.

        Whole targets are computed at once; with a cursor, one position.
        """
        context, config = self.context, self.context.config
        route = context.routed(route, "stack", "decoder")
        queries, keys = _positions(embedded.shape[1], cursor)
        mask = (keys[None, :] <= queries[:, None])[None, None]
        if padding_mask is not None:
            mask = mask & padding_mask
        if cursor is not None and cursor.holders is not None:
            mask = mask & _own_past(cursor.holders)
        bias = None if config.relative_bias_in_layers else _bias(context, embedded.shape[1], cursor)
        x = context.dropout(-2)(embedded)
        # All layers share the copies, so that the gradient of the encoder's output is sent once.
        args = (attention_input(context, encoded), route, mask, cross_mask, bias, cursor)
        x = run_layers(DecoderLayer, context, config.num_decoder_layers, x, *args)
        x = context.dropout(-2)(RMSNorm(name="decoder_norm")(x))
        return x if config.logits_via_embedding else Head(config, name="logits_dense")(x)
