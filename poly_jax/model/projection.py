"""A site: one frozen linear map and, where it is selected, the skills that adapt it."""

from collections.abc import Mapping

import flax.linen as nn
import jax.numpy as jnp
from flax.linen import partitioning
from jaxtyping import Array, Float

from poly_jax.adapters.config import Adapters
from poly_jax.model.config import T5Config
from poly_jax.model.route import Route, passes_router
from poly_jax.parameters import Initializer


class Skills(nn.Module):
    """The inventory of one site."""

    adapters: Adapters
    d_in: int
    d_out: int

    @nn.compact
    def __call__(self, weights: Float[Array, "*rows splits skills"]) -> Mapping[str, Float[Array, "..."]]:
        """One adapter per row, mixed by `weights`."""
        cfg = self.adapters
        specs = cfg.skill.parameters(cfg.n_splits, cfg.inventory_size, self.d_in, self.d_out)
        parameters = {
            name: partitioning.param_with_axes(name, spec.init, spec.shape, axes=spec.axes)
            for name, spec in specs.items()
        }
        return cfg.skill.mix(parameters, weights)


class Projection(nn.Module):
    """`y = x W`, adapted where its site is selected.

    Attributes:
      config: shape of the model.
      adapters: the run's adapters, or None.
      site: path of this site, as `poly_jax.model.sites.sites` lists it.
      features: output width.
      kernel_init: initialiser of W.
      kernel_axes: logical names of W's axes.
      train: whether routers may sample.
      decode: keep the mixed adapters in the collection `prefill`, so that later calls with the same rows do
        not mix again.
    """

    config: T5Config
    adapters: Adapters | None
    site: str
    features: int
    kernel_init: Initializer
    kernel_axes: tuple[str, str]
    train: bool = False
    decode: bool = False

    @nn.compact
    def __call__(
        self, x: Float[Array, "batch length d_in"], route: Route | None
    ) -> Float[Array, "batch length d_out"]:
        """The site's output for every row's task."""
        d_in = x.shape[-1]
        kernel = partitioning.param_with_axes(
            "kernel", self.kernel_init, (d_in, self.features), jnp.float32, axes=self.kernel_axes
        )
        y = x @ kernel.astype(x.dtype)
        if self.adapters is None or route is None or not self.adapters.adapts(self.site):
            return y
        return self.adapters.skill.apply(self._mixed(self.adapters, d_in, route), x, y)

    def _mixed(self, adapters: Adapters, d_in: int, route: Route) -> Mapping[str, Float[Array, "..."]]:
        if self.decode and self.has_variable("prefill", "mixed"):
            return self.get_variable("prefill", "mixed")
        routed = passes_router(adapters, self.config, "fine", self.site, route, self.train)
        # Whatever the granularity, a router sits on the way to every adapted site.
        assert routed is not None
        assert routed.weights is not None
        mixed = Skills(adapters, d_in, self.features, name="skills")(routed.weights)
        if self.decode:
            self.put_variable("prefill", "mixed", mixed)
        return mixed
