"""Optimizers with one learning rate for skills and another for routers."""

import dataclasses
import functools
import itertools
import math
from typing import Any, Literal, NamedTuple

import jax
import optax
from jax.tree_util import DictKey
from jaxtyping import Array, Float

from poly_jax.errors import UserError
from poly_jax.literal_fields import check_literal_fields
from poly_jax.training.annealing import anneal_to_zero
from poly_jax.training.per_layer import per_layer
from poly_jax.weights.parameter_names import is_router
from poly_jax.weights.tree import flatten, unflatten

Algorithm = Literal["adamw", "adafactor"]
Decay = Literal["linear", "cosine", "constant", "rsqrt"]


class LearningRates(NamedTuple):
    """The learning rates of an optimizer at each step of a run.

    Attributes:
      skills: rates of skills, or of the backbone where the backbone is trained.
      routers: rates of routers.
    """

    skills: Float[Array, "*runs steps"]
    routers: Float[Array, "*runs steps"]


class Elementwise(optax.GradientTransformationExtraArgs):
    """A transformation that treats each number of each parameter on its own, apart from the gradients' norm.

    Parameters may lie in memory in any arrangement, as those of `poly_jax.training.packed_routers` do.
    """


@dataclasses.dataclass(frozen=True)
class Optimizer:
    """AdamW or Adafactor, with linear warm-up from 0 and a decay to 0.

    Attributes:
      algorithm: "adamw" (arXiv 1711.05101) or "adafactor" (arXiv 1804.04235).
      learning_rate: peak learning rate of skills, or of the backbone where the backbone is trained.
      router_learning_rate: peak learning rate of routers.
      warmup_fraction: fraction of the steps in which the learning rate rises from 0.
      decay: the learning rate after the warm-up: "linear" or "cosine" falls to 0 at the last step, "constant"
        stays, "rsqrt" falls with the inverse square root of the step.
      weight_decay: decoupled weight decay, multiplied by the learning rate. Routers have none, because the
        rows of tasks that are absent from a batch would shrink.
      clip_norm: largest global norm of the gradients, which are scaled down to it; 0 does not clip.
      b1: AdamW's decay rate of the first moment.
      b2: AdamW's decay rate of the second moment.
      parameter_scaling: whether Adafactor's steps are relative to the parameter's size. The steps of routers
        never are, because a fresh router is so close to 0 that it would hardly change.
    """

    algorithm: Algorithm = "adamw"
    learning_rate: float = 1e-3
    router_learning_rate: float = 0.1
    warmup_fraction: float = 0.06
    decay: Decay = "linear"
    weight_decay: float = 0.0
    clip_norm: float = 1.0
    b1: float = 0.9
    b2: float = 0.999
    parameter_scaling: bool = False

    def __post_init__(self):
        check_literal_fields(self)
        if not 0 <= self.warmup_fraction <= 1:
            raise UserError(f"Optimizer.warmup_fraction is {self.warmup_fraction}; it must be in [0, 1]")
        for field in ("learning_rate", "router_learning_rate", "weight_decay", "clip_norm"):
            if not 0 <= getattr(self, field) < math.inf:
                raise UserError(f"Optimizer.{field} is {getattr(self, field)}; it must be 0 or more")
        for field in ("b1", "b2"):
            if not 0 <= getattr(self, field) < 1:
                raise UserError(f"Optimizer.{field} is {getattr(self, field)}; it must be in [0, 1)")

    def schedule(self, peak: float, steps: int) -> optax.Schedule:
        """Return the learning rate of each of `steps` steps; with a warm-up, step 0 has learning rate 0."""
        warmup = round(self.warmup_fraction * steps)
        rest, first = max(steps - warmup, 1), max(warmup, 1)
        decays = {
            "linear": optax.linear_schedule(peak, 0.0, rest),
            "cosine": optax.cosine_decay_schedule(peak, rest),
            "constant": optax.constant_schedule(peak),
            # The schedule is also called for the steps of the warm-up, which are negative here.
            "rsqrt": lambda step: peak * jax.numpy.sqrt(first / jax.numpy.maximum(step + first, 1)),
        }
        if not warmup:
            return decays[self.decay]
        return optax.join_schedules([optax.linear_schedule(0.0, peak, warmup), decays[self.decay]], [warmup])

    def learning_rates(self, steps: int) -> LearningRates:
        """Return the learning rates of a run of `steps` steps as arrays [steps]."""
        numbers = jax.numpy.arange(steps)
        peaks = (self.learning_rate, self.router_learning_rate)
        return LearningRates(
            *(jax.numpy.broadcast_to(self.schedule(peak, steps)(numbers), (steps,)) for peak in peaks)
        )

    def transformation(
        self, steps: int, router_anneal_steps: int = 0, rates: LearningRates | None = None
    ) -> optax.GradientTransformation:
        """Make the gradient transformation for a run of `steps` steps.

        Args:
          steps: number of steps of the run.
          router_anneal_steps: see `train`.
          rates: learning rates [steps] in place of the optimizer's own, which may be traced.
        """
        if rates is None:
            return _scheduled(self, steps, router_anneal_steps)
        return self._chained(rates.skills.__getitem__, rates.routers.__getitem__, steps, router_anneal_steps)

    def _chained(
        self, skills: optax.Schedule, routers: optax.Schedule, steps: int, router_anneal_steps: int
    ) -> optax.GradientTransformation:
        router = self._rule(routers, 0.0, False)
        if router_anneal_steps:
            router = optax.chain(router, anneal_to_zero(steps, router_anneal_steps))
        other = self._rule(skills, self.weight_decay, self.parameter_scaling)
        rules = optax.multi_transform({"router": router, "other": other}, _groups)
        clip = _clip(self.clip_norm) if self.clip_norm else optax.identity()
        chained = optax.with_extra_args_support(optax.chain(clip, rules))
        # Adafactor looks at whole arrays.
        return Elementwise(*chained) if self.algorithm == "adamw" else chained

    def _rule(self, rate: optax.Schedule, weight_decay: float, scaling: bool) -> optax.GradientTransformation:
        if self.algorithm == "adamw":
            return optax.adamw(rate, b1=self.b1, b2=self.b2, weight_decay=weight_decay)
        # optax.adafactor's own weight decay ignores the learning rate.
        return optax.chain(
            per_layer(optax.adafactor(multiply_by_parameter_scale=scaling)),
            optax.add_decayed_weights(-weight_decay),
            optax.scale_by_schedule(rate),
        )


def _clip(limit: float) -> optax.GradientTransformationExtraArgs:
    """`optax.clip_by_global_norm`, which need not compute the norm where a step has it for its metrics."""

    def update(gradients, state, params=None, *, gradient_norm=None, **_):
        norm = optax.global_norm(gradients) if gradient_norm is None else gradient_norm
        clipped = jax.tree.map(
            lambda g: jax.lax.select(norm < limit, g, (g / norm.astype(g.dtype)) * limit), gradients
        )
        return clipped, state

    return optax.GradientTransformationExtraArgs(lambda _: optax.EmptyState(), update)


@functools.lru_cache(maxsize=8)
def _scheduled(optimizer: Optimizer, steps: int, router_anneal_steps: int) -> optax.GradientTransformation:
    # Optax's functions are equal only where they are the same, and compiled steps are found by equality.
    skills, routers = (
        optimizer.schedule(peak, steps) for peak in (optimizer.learning_rate, optimizer.router_learning_rate)
    )
    return optimizer._chained(skills, routers, steps, router_anneal_steps)


def like_parameters(state: Any, parameters: Any, values: Any, otherwise: Any) -> Any:
    """Make a tree shaped like an optimizer's state, with each parameter's value in place of its moments.

    Args:
      state: the state of an optimizer for these parameters, or its shapes.
      parameters: nested dictionaries of parameters.
      values: a tree of the same form with a value for each parameter.
      otherwise: the value for counters and for statistics with another shape than their parameter.
    """
    shapes = {path: leaf.shape for path, leaf in flatten(parameters).items()}
    found = flatten(values)

    def value(path: tuple[Any, ...], leaf: Any) -> Any:
        # The path of a moment ends with the path of its parameter, after the optimizer's own names.
        names = itertools.takewhile(lambda key: isinstance(key, DictKey), reversed(path))
        parameter = "/".join(reversed([key.key for key in names]))
        return found[parameter] if shapes.get(parameter) == leaf.shape else otherwise

    return jax.tree_util.tree_map_with_path(value, state)


def _groups(tree: dict[str, Any]) -> dict[str, Any]:
    return unflatten({path: "router" if is_router(path) else "other" for path in flatten(tree)})
