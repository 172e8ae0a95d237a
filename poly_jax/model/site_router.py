"""The router of one site, for routers that look at inputs."""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.linen import partitioning
from jaxtyping import Array, Bool, Float, Int

from poly_jax.adapters.config import Adapters
from poly_jax.model.route import Route, constrain_weights
from poly_jax.routing.input_router import InputRouter
from poly_jax.routing.load import load_statistics
from poly_jax.weights.sharding import constrain


def example_means(
    x: Float[Array, "batch length width"], examples: Int[Array, "batch length"], count: int | None
) -> Float[Array, "*rows width"]:
    """The mean of each example's positions, in float32; padding does not count.

    Args:
      x: the positions of all examples.
      examples: the example of each position (1, 2, ...; 0 is padding).
      count: number of examples that a packed row may hold; None for one example per row.

    Returns:
      [batch, count, width], or [batch, width] for one example per row. The mean of no position is 0.
    """
    own = jax.nn.one_hot(examples - 1, count or 1, dtype=x.dtype)
    totals = jnp.einsum("bls,bld->bsd", own, x, preferred_element_type=jnp.float32)
    lengths = own.astype(jnp.float32).sum(1)[..., None]
    means = totals / jnp.maximum(lengths, 1)
    return means if count else means[:, 0]


class SiteRouter(nn.Module):
    """Owns one site's router and computes mixing weights from what it reads.

    While training, the router draws from the `routing` stream. The weights and their statistics
    (`poly_jax.routing.load.load_statistics`) are sown as the intermediates `weights` and `load`.
    """

    adapters: Adapters
    site: str
    train: bool

    @nn.compact
    def __call__(
        self, x: Float[Array, "batch length width"], route: Route
    ) -> Float[Array, "batch length 1 skills"] | Float[Array, "*rows 1 skills"]:
        """The weights of every position, or of every example for a router that pools."""
        router, sizes = self.adapters.router, self.adapters.sizes
        assert isinstance(router, InputRouter)
        inputs, task_ids, present = self._rows(router, x, route)
        parameters = {
            # A site's router is small, and each of its rows is needed for every token.
            name: constrain(
                partitioning.param_with_axes(name, spec.init, spec.shape, axes=spec.axes),
                *[None] * len(spec.shape),
            )
            for name, spec in router.input_parameters(sizes, inputs.shape[-1]).items()
        }
        weights = router.input_weights(
            parameters, inputs, task_ids, sizes, self._uniform if self.train else None
        )
        self.sow("intermediates", "weights", weights)
        self.sow("intermediates", "load", load_statistics(weights, present))
        return constrain_weights(weights[..., None, :])

    def _rows(
        self, router: InputRouter, x: Float[Array, "batch length width"], route: Route
    ) -> tuple[Float[Array, "*rows width"], Int[Array, "*rows"], Bool[Array, "*rows"]]:
        """The rows that the router reads, the task of each, and whether it is an example or padding."""
        assert route.examples is not None
        examples, packed = route.examples.at(self.site), route.task_ids.ndim > 1
        if not router.pools:
            if packed:
                tasks = jnp.take_along_axis(route.task_ids, jnp.maximum(examples - 1, 0), axis=1)
            else:
                tasks = jnp.broadcast_to(route.task_ids[:, None], x.shape[:2])
            return x, tasks, examples > 0
        count = route.task_ids.shape[1] if packed else None
        means = route.encoded
        if means is None:
            means = example_means(x, examples, count)
        numbers = jnp.arange(1, (count or 1) + 1)
        present = (route.examples.inputs[..., None] == numbers).any(1)
        return means, route.task_ids, present if packed else present[:, 0]

    def _uniform(self, shape: tuple[int, ...]) -> Float[Array, "..."]:
        return jax.random.uniform(self.make_rng("routing"), (math.prod(shape),)).reshape(shape)
