"""How a batch's task ids travel through the model and become mixing weights on the way."""

import dataclasses

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
from flax.linen import partitioning
from jaxtyping import Array, Float, Int

from poly_jax.adapters.config import Adapters
from poly_jax.model.config import T5Config
from poly_jax.model.sharding import constrain
from poly_jax.weights.parameter_names import ROUTER
from poly_jax.weights.t5_dimensions import sites


@flax.struct.dataclass
class Route:
    """Where each row of the batch gets its mix from.

    Attributes:
      task_ids: task of each row.
      weights: mixing weights of the router that was passed last, [batch, splits, skills], or
        [splits, skills] where all rows share one mix; None above it.
    """

    task_ids: Int[Array, "batch"]
    weights: Float[Array, "*rows splits skills"] | None = None

    def repeat(self, count: int) -> "Route":
        """The route of a batch in which every row stands `count` times in a row."""
        weights = self.weights
        if weights is not None and weights.ndim == 3:
            weights = jnp.repeat(weights, count, axis=0)
        return Route(jnp.repeat(self.task_ids, count, axis=0), weights)


class RouterTable(nn.Module):
    """Owns one router's parameters and computes its mixing weights.

    While training, the router draws from the `routing` stream. A variable `noise/uniform` beside its
    parameters replays recorded draws instead.
    """

    adapters: Adapters
    train: bool

    @nn.compact
    def __call__(self, task_ids: Int[Array, "batch"]) -> Float[Array, "*rows splits skills"]:
        """Mixing weights of every row, or one mix for all."""
        cfg = self.adapters
        size = cfg.inventory_size
        specs = cfg.router.parameters(cfg.n_tasks, cfg.n_splits, size)
        parameters = {
            name: partitioning.param_with_axes(name, spec.init, spec.shape, axes=spec.axes)
            for name, spec in specs.items()
        }

        def uniform(shape: tuple[int, ...]) -> Float[Array, "..."]:
            if self.has_variable("noise", "uniform"):
                return self.get_variable("noise", "uniform").reshape(shape)
            return jax.random.uniform(self.make_rng("routing"), shape)

        weights = cfg.router.weights(
            parameters, task_ids, cfg.n_splits, size, uniform if self.train else None
        )
        if weights.ndim == 3:
            # Without this XLA (jax 0.10.2) computes other numbers on meshes of three axes.
            weights = constrain(weights, "batch", "splits", "skills")
        self.sow("intermediates", "weights", weights)
        return weights


def passes_router(
    adapters: Adapters | None, config: T5Config, level: str, prefix: str, route: Route | None, train: bool
) -> Route | None:
    """The route below a place of the model: with new weights where a router of this granularity sits there.

    Called inside a compact module; creates a submodule named `router`.

    Args:
      adapters: the run's adapters, or None for a bare model.
      config: shape of the model.
      level: the place's granularity ("fine", "layer", "block" or "stack"; "coarse" is the model's own).
      prefix: site path of the place; a router is made only where an adapted site lies below it.
      route: as it arrives.
      train: whether routers may sample.
    """
    if adapters is None or route is None or adapters.granularity != level:
        return route
    below = (site for site in sites(config) if site == prefix or site.startswith(prefix + "/"))
    if not any(adapters.adapts(site) for site in below):
        return route
    weights = RouterTable(adapters, train, name=ROUTER)(route.task_ids)
    return dataclasses.replace(route, weights=weights)
