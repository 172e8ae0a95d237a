"""The settings that all modules of one T5 share, and the position that decoding has reached."""

import dataclasses

import flax.linen as nn
import flax.struct
from jaxtyping import Array, Int

from poly_jax.adapters.config import Adapters
from poly_jax.model.config import T5Config
from poly_jax.model.route import Route, RouterTable
from poly_jax.weights.parameter_names import ROUTER, Granularity, is_below
from poly_jax.weights.t5_dimensions import sites


@flax.struct.dataclass
class Cursor:
    """The target position that one step of decoding computes. Modules that get one read and fill caches.

    The collection `cache` holds the keys and values of the positions before it, those of a row's beams side
    by side. The collection `prefill` holds what all steps share: keys and values of the encoded input, and
    every row's mixed adapters.

    Attributes:
      position: the position's number, from 0.
      length: positions that the cache has room for.
      holders: for every beam and position, the beam whose keys and values it has in its past; None for one
        beam. Beams that go on from others change these numbers, and the cache stays where it is.
    """

    position: Int[Array, ""]
    length: int = flax.struct.field(pytree_node=False)
    holders: Int[Array, "batch beams length"] | None = None


@dataclasses.dataclass(frozen=True)
class Context:
    """The settings that all modules of one model share.

    Attributes:
      config: the T5's dimensions and numerics.
      adapters: the skills and their router, or None for the bare T5.
      train: whether dropout is on and routers may sample.
    """

    config: T5Config
    adapters: Adapters | None = None
    train: bool = False

    def routed(self, route: Route | None, level: Granularity, place: str) -> Route | None:
        """The route below a place of the model: with new weights where a router of this level sits there.

        Called inside a compact module, which then owns the router as its submodule `router`.

        Args:
          route: the route as it arrives at the place.
          level: kind of the place; "coarse" is the whole model, whose router the `Transformer` owns.
          place: site path of the place. It has a router only where an adapted site lies at or below it.
        """
        adapters = self.adapters
        if adapters is None or route is None or adapters.granularity != level:
            return route
        if adapters.router.reads_inputs:
            return route  # The projection calls it, which has the input.
        below = (site for site in sites(self.config) if is_below(site, place))
        if not any(adapters.adapts(site) for site in below):
            return route
        weights = RouterTable(adapters, self.train, name=ROUTER)(route.task_ids)
        return dataclasses.replace(route, weights=weights)

    def dropout(self, *shared: int) -> nn.Dropout:
        """The model's dropout, off in evaluation; positions along the `shared` axes are dropped together."""
        return nn.Dropout(self.config.dropout_rate, broadcast_dims=shared, deterministic=not self.train)
