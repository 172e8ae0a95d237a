"""Multi-head attention with adapted projections and a key/value cache."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from poly_jax.adapters.config import Adapters
from poly_jax.model.config import T5Config
from poly_jax.model.projection import Projection
from poly_jax.model.route import Route, passes_router
from poly_jax.model.sharding import constrain

_KERNEL_INIT = nn.initializers.variance_scaling(1.0, "fan_in", "normal")


class Attention(nn.Module):
    """T5 attention: logits are not scaled (the scale is folded into the query's initialiser).

    Attributes:
      config: shape of the model.
      adapters: the run's adapters, or None.
      site: path of this sub-layer, such as `decoder/self_attention`.
      train: whether dropout and sampling are on.
      decode_length: with a key/value cache of this many positions (self-attention), else 0.
      decode: queries come one position at a time; cross-attention keeps its keys and values.
    """

    config: T5Config
    adapters: Adapters | None
    site: str
    train: bool = False
    decode: bool = False
    decode_length: int = 0

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "batch queries embed"],
        attended: Float[Array, "batch keys embed"],
        route: Route | None,
        mask: Bool[Array, "#batch 1 #queries keys_or_cache"] | None,
        bias: Float[Array, "1 heads queries keys_or_cache"] | None = None,
        position: Int[Array, ""] | None = None,
    ) -> Float[Array, "batch queries embed"]:
        """Attends from x to `attended`; `position` is the query's place in the cache while decoding."""
        route = passes_router(self.adapters, self.config, "layer", self.site, route, self.train)
        query = self._heads(x, route, "query")
        if position is not None:
            key, value = self._cached(attended, route, position)
        elif self.decode:
            key, value = self._kept(attended, route)
        else:
            key, value = self._heads(attended, route, "key"), self._heads(attended, route, "value")
        y = self._attend(query, key, value, mask, bias)
        y = y.reshape(*y.shape[:2], -1)
        return self._projection("out", x.shape[-1], ("joined_kv", "embed"))(y, route)

    def _projection(self, name: str, features: int, axes: tuple[str, str]) -> Projection:
        init = _KERNEL_INIT
        if name == "query":
            depth = jnp.sqrt(self.config.head_dim)

            def init(*args):
                return _KERNEL_INIT(*args) / depth

        return Projection(
            self.config,
            self.adapters,
            f"{self.site}/{name}",
            features,
            init,
            axes,
            self.train,
            self.decode,
            name=name,
        )

    def _heads(
        self, x: Float[Array, "batch length embed"], route: Route | None, name: str
    ) -> Float[Array, "batch length heads kv"]:
        cfg = self.config
        y = self._projection(name, cfg.num_heads * cfg.head_dim, ("embed", "joined_kv"))(x, route)
        y = y.reshape(*y.shape[:2], cfg.num_heads, cfg.head_dim)
        return constrain(y, "batch", "length", "heads", "kv")

    def _cached(self, x: Float[Array, "batch 1 embed"], route: Route | None, position: Int[Array, ""]):
        """Keys and values of all positions so far, with this one written at `position`."""
        full = []
        for name in ("key", "value"):
            new = self._heads(x, route, name)
            shape = (new.shape[0], self.decode_length, *new.shape[2:])
            cache = self.variable("cache", f"cached_{name}", jnp.zeros, shape, new.dtype)
            cache.value = jax.lax.dynamic_update_slice_in_dim(cache.value, new, position, axis=1)
            full.append(cache.value)
        return full

    def _kept(self, x: Float[Array, "batch keys embed"], route: Route | None):
        """Keys and values of the encoded input, computed by the first call only."""
        return [
            self.variable("prefill", f"kept_{name}", self._heads, x, route, name).value
            for name in ("key", "value")
        ]

    def _attend(self, query, key, value, mask, bias) -> Float[Array, "batch queries heads kv"]:
        # T5 drops attention weights with one mask for all queries of a row and head: whole keys, that is, and
        # dropping their values is the same.
        drop = nn.Dropout(self.config.dropout_rate, broadcast_dims=(-1,), deterministic=not self.train)
        return jax.nn.dot_product_attention(query, key, drop(value), bias=bias, mask=mask, scale=1.0)
