"""The task ids of a batch on their way through the model, where routers turn them into mixing weights."""

import itertools
import math

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
from flax.linen import partitioning
from jaxtyping import Array, Float, Int

from poly_jax.adapters.config import Adapters
from poly_jax.model.joint_routing import JOINT
from poly_jax.model.segments import Segments
from poly_jax.weights.sharding import constrain

NOISE = "noise"
"""The collection of variables in which a caller may pass a router's draws."""


@flax.struct.dataclass
class Route:
    """The tasks that choose the adapters of a batch, and the mix of skills that they get.

    Attributes:
      task_ids: the task of everything that has a mix of its own: `rows` is `batch`, or `batch segments` where
        a row packs several examples, or nothing where the whole batch has one task. The task of a row's n-th
        example has index n - 1.
      weights: mixing weights of the innermost router above this module, [*rows, splits, skills], or
        [splits, skills] where the whole batch shares one mix; None above the first router.
      segments: places of the examples in packed rows; None for one example per row.
      examples: for routers that look at inputs, the example of every position, in any kind of rows.
      encoded: in the decoder, for routers that pool, the mean of each example's encoded input.
    """

    task_ids: Int[Array, "*rows"]
    weights: Float[Array, "*rows_or_none splits skills"] | None = None
    segments: Segments | None = None
    examples: Segments | None = None
    encoded: Float[Array, "*rows width"] | None = None

    def repeat(self, count: int, targets: Int[Array, "repeated targets"]) -> "Route":
        """The route of a batch that holds each row `count` times, next to one another, with these targets."""
        weights = self.weights
        if weights is not None and weights.ndim > 2:
            weights = jnp.repeat(weights, count, axis=0)
        examples, encoded = self.examples, self.encoded
        if examples is not None:
            inputs = jnp.repeat(examples.inputs, count, axis=0)
            examples = Segments(inputs, (targets > 0).astype(jnp.int32))
        if encoded is not None:
            encoded = jnp.repeat(encoded, count, axis=0)
        task_ids = self.task_ids
        if task_ids.ndim:
            task_ids = jnp.repeat(task_ids, count, axis=0)
        return Route(task_ids, weights, examples=examples, encoded=encoded)


def constrain_weights(
    weights: Float[Array, "*rows_or_none splits skills"],
) -> Float[Array, "*rows_or_none splits skills"]:
    """Lay mixing weights out over the mesh as the batch is, with splits over the `model` axis, as skills are.

    Weights are gathered by task id. Without this constraint at every site that mixes with them, XLA (jax
    0.10.2) computes wrong products on a mesh whose data, fsdp and model axes are all larger than 1. The
    constraint of a router that stands outside a scan over layers does not reach the sites inside it.
    """
    rows = ("batch", "segments")[: weights.ndim - 2]
    return constrain(weights, *rows, "heads", None) if rows else weights


class RouterTable(nn.Module):
    """Owns one router's parameters and computes its mixing weights.

    A training step may compute the weights of all routers together, and pass this router's as the variable
    `weights` of the collection `joint_routing` (`poly_jax.model.joint_routing`). Otherwise the router draws
    from the `routing` stream while training; a caller may pass the draws as the variables `uniform`,
    `uniform_2` ... of the collection `noise`.
    """

    adapters: Adapters
    train: bool

    @nn.compact
    def __call__(self, task_ids: Int[Array, "*rows"]) -> Float[Array, "*rows_or_none splits skills"]:
        """The mixing weights of every row, or one mix for all."""
        together = self.has_variable(JOINT, "weights")
        weights = self.get_variable(JOINT, "weights") if together else self._own(task_ids)
        self.sow("intermediates", "weights", weights)
        return weights

    def _own(self, task_ids: Int[Array, "*rows"]) -> Float[Array, "*rows_or_none splits skills"]:
        router, sizes = self.adapters.router, self.adapters.sizes
        parameters = {
            name: partitioning.param_with_axes(name, spec.init, spec.shape, axes=spec.axes)
            for name, spec in router.parameters(sizes).items()
        }

        numbers = itertools.count(1)

        def uniform(shape: tuple[int, ...]) -> Float[Array, "..."]:
            number = next(numbers)
            if self.has_variable(NOISE, name := "uniform" if number == 1 else f"uniform_{number}"):
                return self.get_variable(NOISE, name).reshape(shape)
            # XLA compiles a draw of one axis several times faster, and its numbers are the same.
            return jax.random.uniform(self.make_rng("routing"), (math.prod(shape),)).reshape(shape)

        return router.weights(parameters, task_ids, sizes, uniform if self.train else None)
