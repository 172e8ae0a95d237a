"""Multi-head attention with adapted projections and a key/value cache."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from poly_jax.model.context import Context, Cursor
from poly_jax.model.fan_out import FanOut, fan_out
from poly_jax.model.float32_product import float32_product
from poly_jax.model.one_residual import softmax
from poly_jax.model.projection import Projection
from poly_jax.model.route import Route
from poly_jax.weights.sharding import constrain

_KERNEL_INIT = nn.initializers.variance_scaling(1.0, "fan_in", "normal")


def attention_input(context: Context, x: Float[Array, "batch length embed"] | FanOut) -> FanOut:
    """Prepare what several of attention's projections read."""
    config = context.config
    return fan_out(x, config.num_heads * config.head_dim, "joined_kv", context.train)


def _attend(
    query: Float[Array, "batch queries heads kv"],
    key: Float[Array, "batch keys heads kv"] | Float[Array, "batch heads kv keys"],
    value: Float[Array, "batch keys heads kv"] | Float[Array, "batch heads kv keys"],
    cached: bool,
    bias: Float[Array, "1 heads queries keys"] | None,
    mask: Bool[Array, "#batch 1 #queries keys"] | None,
) -> Float[Array, "batch queries heads kv"]:
    """Weighted sums of the values, with the softmax in float32 as in `jax.nn.dot_product_attention`.

    That function's backward pass multiplies float32 gradients. Cached keys and values have their positions
    last: the products need them so, and would otherwise transpose the whole cache at every token.
    """
    keys = "bhdk" if cached else "bkhd"
    logits = float32_product(f"bqhd,{keys}->bhqk", query, key)
    if bias is not None:
        logits = logits + bias
    if mask is not None:
        logits = jnp.where(mask, logits, 0.7 * jnp.finfo(logits.dtype).min)
    weights = softmax(logits).astype(value.dtype)
    return jnp.einsum(f"bhqk,{keys}->bqhd", weights, value)


def _positions_last(x: Float[Array, "batch length heads kv"]) -> Float[Array, "batch heads kv length"]:
    return jnp.moveaxis(x, 1, -1)


class Attention(nn.Module):
    """T5 attention: logits are not scaled (the scale is folded into the query's initialiser).

    Attributes:
      context: the model's settings.
      site: path of this sub-layer, such as `decoder/self_attention`.
    """

    context: Context
    site: str

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "batch queries embed"],
        encoded: Float[Array, "batch keys embed"] | FanOut | None,
        route: Route | None,
        mask: Bool[Array, "#batch 1 #queries keys_or_cache"] | None,
        bias: Float[Array, "1 heads queries keys_or_cache"] | None = None,
        cursor: Cursor | None = None,
    ) -> Float[Array, "batch queries embed"]:
        """Attends from x to itself, or where `encoded` is given to the encoded input.

        With a cursor, the queries of a row are those of its beams, all at one position.
        """
        route = self.context.routed(route, "layer", self.site)
        own = attention_input(self.context, x)
        other = None if encoded is None else attention_input(self.context, encoded)

        def heads(name: str, y: FanOut) -> Float[Array, "batch length heads kv"]:
            return self._heads(name, y, route, cursor)

        def kept(name: str, y: FanOut) -> Float[Array, "batch heads kv length"]:
            return _positions_last(heads(name, y))

        query = heads("query", own)
        if cursor is None:
            key, value = (heads(name, own if other is None else other) for name in ("key", "value"))
        elif other is None:
            key, value = (self._with_past(name, heads(name, own), cursor) for name in ("key", "value"))
        else:
            # Only the first step computes them.
            key, value = (
                self.variable("prefill", f"kept_{name}", kept, name, other).value for name in ("key", "value")
            )
        # T5 drops attention weights with one mask for all queries of a row and head. That drops whole keys,
        # which is the same as dropping their values.
        value = self.context.dropout(-1)(value)
        y = _attend(query, key, value, cursor is not None, bias, mask)
        y = y.reshape(*x.shape[:2], -1)
        axes = ("joined_kv", "embed")
        out = Projection(self.context, f"{self.site}/out", x.shape[-1], _KERNEL_INIT, axes, name="out")
        return constrain(out(y, route, cursor), "batch", "length", "embed")

    def _heads(
        self, name: str, x: FanOut, route: Route | None, cursor: Cursor | None
    ) -> Float[Array, "batch length heads kv"]:
        config = self.context.config

        def query_init(*args):
            return _KERNEL_INIT(*args) / jnp.sqrt(config.head_dim)

        projection = Projection(
            self.context,
            f"{self.site}/{name}",
            config.num_heads * config.head_dim,
            query_init if name == "query" else _KERNEL_INIT,
            ("embed", "joined_kv"),
            name=name,
        )
        y = projection(x, route, cursor).reshape(*x.x.shape[:2], config.num_heads, config.head_dim)
        return constrain(y, "batch", "length", "heads", "kv")

    def _with_past(
        self, name: str, new: Float[Array, "batch beams heads kv"], cursor: Cursor
    ) -> Float[Array, "batch heads kv cache"]:
        """Keys or values of all positions so far: those in the cache, with those of all beams written in."""
        new = _positions_last(new)
        *sizes, beams = new.shape
        cache = self.variable(
            "cache", f"cached_{name}", jnp.zeros, (*sizes, cursor.length * beams), new.dtype
        )
        start = cursor.position * beams
        cache.value = jax.lax.dynamic_update_slice_in_dim(cache.value, new, start, axis=-1)
        return cache.value
