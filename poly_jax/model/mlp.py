"""T5's feed-forward block, gated or not."""

import functools
from collections.abc import Callable

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from poly_jax.model.context import Context, Cursor
from poly_jax.model.fan_out import FanOut, fan_out
from poly_jax.model.one_residual import gated_gelu
from poly_jax.model.projection import Projection
from poly_jax.model.route import Route
from poly_jax.weights.sharding import constrain

_KERNEL_INIT = nn.initializers.variance_scaling(1.0, "fan_in", "truncated_normal")
_ACTIVATIONS: dict[str, Callable[[Array], Array]] = {"relu": nn.relu, "gelu": nn.gelu, "linear": lambda x: x}


class MLP(nn.Module):
    """The product of the activated input projections, dropout, and the output projection `wo`.

    Attributes:
      context: the model's settings.
      site: path of this sub-layer, such as `encoder/mlp`.
    """

    context: Context
    site: str

    @nn.compact
    def __call__(
        self, x: Float[Array, "batch length embed"], route: Route | None, cursor: Cursor | None = None
    ) -> Float[Array, "batch length embed"]:
        """The block's output, without the residual."""
        config = self.context.config
        route = self.context.routed(route, "layer", self.site)

        def project(name: str, y: Array | FanOut, features: int, axes: tuple[str, str]) -> Array:
            site = f"{self.site}/{name}"
            return Projection(self.context, site, features, _KERNEL_INIT, axes, name=name)(y, route, cursor)

        shared = fan_out(x, config.mlp_dim, "mlp", self.context.train)
        parts = [project(name, shared, config.mlp_dim, ("embed", "mlp")) for name in config.mlp_inputs]
        if config.mlp_activations == ("gelu", "linear"):
            hidden = gated_gelu(*parts)
        else:
            activated = zip(config.mlp_activations, parts, strict=True)
            hidden = functools.reduce(jnp.multiply, [_ACTIVATIONS[name](part) for name, part in activated])
        hidden = constrain(self.context.dropout(-2)(hidden), "batch", "length", "mlp")
        return constrain(project("wo", hidden, x.shape[-1], ("mlp", "embed")), "batch", "length", "embed")
