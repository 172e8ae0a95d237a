"""T5's feed-forward block, gated or not."""

import flax.linen as nn
from jaxtyping import Array, Float

from poly_jax.adapters.config import Adapters
from poly_jax.model.config import T5Config
from poly_jax.model.projection import Projection
from poly_jax.model.route import Route, passes_router
from poly_jax.model.sharding import constrain

_KERNEL_INIT = nn.initializers.variance_scaling(1.0, "fan_in", "truncated_normal")
_ACTIVATIONS = {"relu": nn.relu, "gelu": lambda x: nn.gelu(x, approximate=True), "linear": lambda x: x}


class MLP(nn.Module):
    """The product of the activated input projections, dropout, and the output projection `wo`.

    Attributes:
      config: shape of the model.
      adapters: the run's adapters, or None.
      site: path of this sub-layer, such as `encoder/mlp`.
      train: whether dropout and sampling are on.
      decode: keep the mixed adapters between calls.
    """

    config: T5Config
    adapters: Adapters | None
    site: str
    train: bool = False
    decode: bool = False

    @nn.compact
    def __call__(
        self, x: Float[Array, "batch length embed"], route: Route | None
    ) -> Float[Array, "batch length embed"]:
        """The block's output, without the residual."""
        cfg = self.config
        route = passes_router(self.adapters, cfg, "layer", self.site, route, self.train)
        hidden = None
        for name, activation in zip(cfg.mlp_inputs, cfg.mlp_activations, strict=True):
            part = _ACTIVATIONS[activation](self._projection(name, cfg.mlp_dim, ("embed", "mlp"))(x, route))
            hidden = part if hidden is None else hidden * part
        hidden = nn.Dropout(cfg.dropout_rate, broadcast_dims=(-2,))(hidden, deterministic=not self.train)
        hidden = constrain(hidden, "batch", "length", "mlp")
        return self._projection("wo", x.shape[-1], ("mlp", "embed"))(hidden, route)

    def _projection(self, name: str, features: int, axes: tuple[str, str]) -> Projection:
        site = f"{self.site}/{name}"
        return Projection(
            self.config,
            self.adapters,
            site,
            features,
            _KERNEL_INIT,
            axes,
            self.train,
            self.decode,
            name=name,
        )
