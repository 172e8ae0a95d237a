"""T5's decoder, for whole targets and for one position at a time."""

import flax.linen as nn
import jax.numpy as jnp
from flax.linen import partitioning
from jaxtyping import Array, Bool, Float, Int

from poly_jax.adapters.config import Adapters
from poly_jax.model.attention import Attention
from poly_jax.model.config import T5Config
from poly_jax.model.mlp import MLP
from poly_jax.model.normalization import RMSNorm
from poly_jax.model.relative_position import RelativePositionBias
from poly_jax.model.route import Route, passes_router
from poly_jax.model.sharding import constrain
from poly_jax.model.stack import run_layers


def _positions(
    length: int, decode_length: int, position: Int[Array, ""] | None
) -> tuple[Int[Array, "length"], Int[Array, "keys"]]:
    """Of the queries and of the keys: all of the targets, or one query over the cache."""
    if position is not None:
        return position[None], jnp.arange(decode_length)
    return jnp.arange(length), jnp.arange(length)


def _bias(
    config: T5Config, queries: Int[Array, "length"], keys: Int[Array, "keys"]
) -> Float[Array, "1 heads length keys"]:
    """The bias of the module in which this is called."""
    return RelativePositionBias(config, bidirectional=False, name="relpos_bias")(queries, keys)


class DecoderLayer(nn.Module):
    """Self-attention, cross-attention and MLP, each behind a norm and a residual."""

    config: T5Config
    adapters: Adapters | None
    train: bool
    decode_length: int

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "batch length embed"],
        encoded: Float[Array, "batch inputs embed"],
        route: Route | None,
        mask: Bool[Array, "#batch 1 length keys"],
        cross_mask: Bool[Array, "batch 1 #length inputs"],
        bias: Float[Array, "1 heads length keys"] | None,
        position: Int[Array, ""] | None,
    ) -> tuple[Float[Array, "batch length embed"], None]:
        """The next layer's input, and nothing for a scan to stack."""
        cfg, train, decode = self.config, self.train, bool(self.decode_length)
        drop = nn.Dropout(cfg.dropout_rate, broadcast_dims=(-2,), deterministic=not train)
        route = passes_router(self.adapters, cfg, "block", "decoder", route, train)
        if cfg.relative_bias_in_layers:
            bias = _bias(cfg, *_positions(x.shape[1], self.decode_length, position))
        y = RMSNorm(name="pre_self_attention_layer_norm")(x)
        attention = Attention(
            cfg,
            self.adapters,
            "decoder/self_attention",
            train,
            decode,
            self.decode_length,
            name="self_attention",
        )
        x = x + drop(attention(y, y, route, mask, bias, position))
        y = RMSNorm(name="pre_cross_attention_layer_norm")(x)
        cross = Attention(
            cfg,
            self.adapters,
            "decoder/encoder_decoder_attention",
            train,
            decode,
            name="encoder_decoder_attention",
        )
        x = x + drop(cross(y, encoded, route, cross_mask))
        y = RMSNorm(name="pre_mlp_layer_norm")(x)
        y = MLP(cfg, self.adapters, "decoder/mlp", train, decode, name="mlp")(y, route)
        return constrain(x + drop(y), "batch", "length", "embed"), None


class Head(nn.Module):
    """Untied output head: logits in float32."""

    config: T5Config

    @nn.compact
    def __call__(self, x: Float[Array, "batch length embed"]) -> Float[Array, "batch length vocab"]:
        """Logits over the vocabulary."""
        kernel = partitioning.param_with_axes(
            "kernel",
            nn.initializers.variance_scaling(1.0, "fan_in", "truncated_normal"),
            (x.shape[-1], self.config.vocab_size),
            axes=("embed", "vocab"),
        )
        return jnp.einsum("bld,dv->blv", x, kernel.astype(x.dtype), preferred_element_type=jnp.float32)


class Decoder(nn.Module):
    """A stack of decoder layers over embedded tokens, with the output head where that is not tied.

    Attributes:
      config: shape of the model.
      adapters: the run's adapters, or None.
      train: whether dropout and sampling are on.
      decode_length: 0 to run whole targets at once; else one position a call, with a cache of this length.
    """

    config: T5Config
    adapters: Adapters | None
    train: bool = False
    decode_length: int = 0

    @nn.compact
    def __call__(
        self,
        embedded: Float[Array, "batch length embed"],
        encoded: Float[Array, "batch inputs embed"],
        route: Route | None,
        cross_mask: Bool[Array, "batch 1 #length inputs"],
        position: Int[Array, ""] | None = None,
        padding_mask: Bool[Array, "batch 1 length length"] | None = None,
    ) -> Float[Array, "batch length embed_or_vocab"]:
        """Logits, or where the head is tied to the embedding the normalised output that goes into it."""
        cfg, train = self.config, self.train
        route = passes_router(self.adapters, cfg, "stack", "decoder", route, train)
        queries, keys = _positions(embedded.shape[1], self.decode_length, position)
        mask = (keys[None, :] <= queries[:, None])[None, None]
        if padding_mask is not None:
            mask = mask & padding_mask
        bias = None if cfg.relative_bias_in_layers else _bias(cfg, queries, keys)
        x = nn.Dropout(cfg.dropout_rate, broadcast_dims=(-2,))(embedded, deterministic=not train)
        fields = {
            "config": cfg,
            "adapters": self.adapters,
            "train": train,
            "decode_length": self.decode_length,
        }
        x = run_layers(
            DecoderLayer,
            cfg,
            cfg.num_decoder_layers,
            fields,
            x,
            encoded,
            route,
            mask,
            cross_mask,
            bias,
            position,
        )
        x = RMSNorm(name="decoder_norm")(x)
        x = nn.Dropout(cfg.dropout_rate, broadcast_dims=(-2,))(x, deterministic=not train)
        return x if cfg.logits_via_embedding else Head(cfg, name="logits_dense")(x)
