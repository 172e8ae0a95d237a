"""T5's encoder."""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from poly_jax.model.attention import Attention
from poly_jax.model.context import Context
from poly_jax.model.mlp import MLP
from poly_jax.model.normalization import RMSNorm
from poly_jax.model.relative_position import RelativePositionBias
from poly_jax.model.route import Route
from poly_jax.model.stack import run_layers
from poly_jax.weights.sharding import constrain


def _bias(context: Context, length: int) -> Float[Array, "1 heads length length"]:
    """The position bias of the module that calls this."""
    positions = jnp.arange(length)
    return RelativePositionBias(context.config, bidirectional=True, name="relpos_bias")(positions, positions)


class EncoderLayer(nn.Module):
    """Self-attention and MLP, each behind a norm and a residual."""

    context: Context

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "batch length embed"],
        route: Route | None,
        mask: Bool[Array, "batch 1 length length"],
        bias: Float[Array, "1 heads length length"] | None,
    ) -> tuple[Float[Array, "batch length embed"], None]:
        """The next layer's input, and nothing for a scan to stack."""
        context, drop = self.context, self.context.dropout(-2)
        route = context.routed(route, "block", "encoder")
        if context.config.relative_bias_in_layers:
            bias = _bias(context, x.shape[1])
        y = RMSNorm(name="pre_attention_layer_norm")(x)
        x = x + drop(Attention(context, "encoder/attention", name="attention")(y, None, route, mask, bias))
        y = RMSNorm(name="pre_mlp_layer_norm")(x)
        y = MLP(context, "encoder/mlp", name="mlp")(y, route)
        return constrain(x + drop(y), "batch", "length", "embed"), None


class Encoder(nn.Module):
    """A stack of encoder layers over embedded tokens."""

    context: Context

    @nn.compact
    def __call__(
        self,
        embedded: Float[Array, "batch length embed"],
        route: Route | None,
        mask: Bool[Array, "batch 1 length length"],
    ) -> Float[Array, "batch length embed"]:
        """The encoded input, normalised."""
        context, config = self.context, self.context.config
        route = context.routed(route, "stack", "encoder")
        bias = None if config.relative_bias_in_layers else _bias(context, embedded.shape[1])
        x = context.dropout(-2)(embedded)
        x = run_layers(EncoderLayer, context, config.num_encoder_layers, x, route, mask, bias)
        return context.dropout()(RMSNorm(name="encoder_norm")(x))
