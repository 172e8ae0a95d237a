"""T5's encoder."""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from poly_jax.adapters.config import Adapters
from poly_jax.model.attention import Attention
from poly_jax.model.config import T5Config
from poly_jax.model.mlp import MLP
from poly_jax.model.normalization import RMSNorm
from poly_jax.model.relative_position import RelativePositionBias
from poly_jax.model.route import Route, passes_router
from poly_jax.model.sharding import constrain
from poly_jax.model.stack import run_layers


def _bias(config: T5Config, length: int) -> Float[Array, "1 heads length length"]:
    """The bias of the module in which this is called."""
    positions = jnp.arange(length)
    return RelativePositionBias(config, bidirectional=True, name="relpos_bias")(positions, positions)


class EncoderLayer(nn.Module):
    """Self-attention and MLP, each behind a norm and a residual."""

    config: T5Config
    adapters: Adapters | None
    train: bool

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "batch length embed"],
        route: Route | None,
        mask: Bool[Array, "batch 1 length length"],
        bias: Float[Array, "1 heads length length"] | None,
    ) -> tuple[Float[Array, "batch length embed"], None]:
        """The next layer's input, and nothing for a scan to stack."""
        cfg, train = self.config, self.train
        drop = nn.Dropout(cfg.dropout_rate, broadcast_dims=(-2,), deterministic=not train)
        route = passes_router(self.adapters, cfg, "block", "encoder", route, train)
        if cfg.relative_bias_in_layers:
            bias = _bias(cfg, x.shape[1])
        y = RMSNorm(name="pre_attention_layer_norm")(x)
        y = Attention(cfg, self.adapters, "encoder/attention", train, name="attention")(
            y, y, route, mask, bias
        )
        x = x + drop(y)
        y = RMSNorm(name="pre_mlp_layer_norm")(x)
        y = MLP(cfg, self.adapters, "encoder/mlp", train, name="mlp")(y, route)
        return constrain(x + drop(y), "batch", "length", "embed"), None


class Encoder(nn.Module):
    """A stack of encoder layers over embedded tokens."""

    config: T5Config
    adapters: Adapters | None
    train: bool = False

    @nn.compact
    def __call__(
        self,
        embedded: Float[Array, "batch length embed"],
        route: Route | None,
        mask: Bool[Array, "batch 1 length length"],
    ) -> Float[Array, "batch length embed"]:
        """The encoded input, normalised."""
        cfg, train = self.config, self.train
        route = passes_router(self.adapters, cfg, "stack", "encoder", route, train)
        bias = None if cfg.relative_bias_in_layers else _bias(cfg, embedded.shape[1])
        x = nn.Dropout(cfg.dropout_rate, broadcast_dims=(-2,))(embedded, deterministic=not train)
        fields = {"config": cfg, "adapters": self.adapters, "train": train}
        x = run_layers(EncoderLayer, cfg, cfg.num_encoder_layers, fields, x, route, mask, bias)
        x = RMSNorm(name="encoder_norm")(x)
        return nn.Dropout(cfg.dropout_rate)(x, deterministic=not train)
