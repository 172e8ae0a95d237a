"""Optimizers with one learning rate for skills and another for routers."""

import dataclasses
import itertools
from typing import Any, Literal

import jax
import optax
from flax import traverse_util
from jax.tree_util import DictKey

from poly_jax.errors import UserError
from poly_jax.training.annealing import anneal_to_zero
from poly_jax.training.per_layer import per_layer
from poly_jax.weights.parameter_names import is_router


@dataclasses.dataclass(frozen=True)
class Optimizer:
    """AdamW or Adafactor, with linear warm-up from 0 and a decay to 0.

    Attributes:
      algorithm: "adamw" (arXiv 1711.05101) or "adafactor" (arXiv 1804.04235).
      learning_rate: peak rate of skills, or of the backbone where that is trained.
      router_learning_rate: peak rate of routers.
      warmup_fraction: part of the steps in which the rate rises from 0.
      decay: after the warm-up: "linear" or "cosine" to 0 at the last step, "constant", or "rsqrt" with the
        inverse square root of the step.
      weight_decay: decoupled, times the learning rate; routers are never decayed, or rows of tasks absent
        from a batch would shrink.
      clip_norm: gradients of a larger global norm are scaled down to it; 0 for no clipping.
      b1: AdamW's decay of the first moment.
      b2: AdamW's decay of the second moment.
      parameter_scaling: Adafactor's steps relative to the parameter's size. Never for routers: a fresh router
        is so close to 0 that it would crawl.
    """

    algorithm: Literal["adamw", "adafactor"] = "adamw"
    learning_rate: float = 1e-3
    router_learning_rate: float = 0.1
    warmup_fraction: float = 0.06
    decay: Literal["linear", "cosine", "constant", "rsqrt"] = "linear"
    weight_decay: float = 0.0
    clip_norm: float = 1.0
    b1: float = 0.9
    b2: float = 0.999
    parameter_scaling: bool = False

    def __post_init__(self):
        if self.algorithm not in ("adamw", "adafactor"):
            raise UserError(f"Optimizer.algorithm is {self.algorithm!r}; use 'adamw' or 'adafactor'")
        if self.decay not in ("linear", "cosine", "constant", "rsqrt"):
            raise UserError(
                f"Optimizer.decay is {self.decay!r}; use 'linear', 'cosine', 'constant' or 'rsqrt'"
            )
        if not 0 <= self.warmup_fraction <= 1:
            raise UserError(f"Optimizer.warmup_fraction is {self.warmup_fraction}; it must be in [0, 1]")

    def schedule(self, peak: float, steps: int) -> optax.Schedule:
        """Learning rate of each of `steps` steps; that of step 0 is 0 where there is a warm-up."""
        warmup = round(self.warmup_fraction * steps)
        rest, first = max(steps - warmup, 1), max(warmup, 1)
        decays = {
            "linear": optax.linear_schedule(peak, 0.0, rest),
            "cosine": optax.cosine_decay_schedule(peak, rest),
            "constant": optax.constant_schedule(peak),
            # It is asked about the warm-up too, where the step is negative.
            "rsqrt": lambda step: peak * jax.numpy.sqrt(first / jax.numpy.maximum(step + first, 1)),
        }
        if not warmup:
            return decays[self.decay]
        return optax.join_schedules([optax.linear_schedule(0.0, peak, warmup), decays[self.decay]], [warmup])

    def transformation(self, steps: int, router_anneal_steps: int = 0) -> optax.GradientTransformation:
        """The gradient transformation for a run of this many steps; see `train` for the annealing."""
        router = self._rule(self.schedule(self.router_learning_rate, steps), 0.0, False)
        if router_anneal_steps:
            router = optax.chain(router, anneal_to_zero(steps, router_anneal_steps))
        rules = optax.multi_transform(
            {
                "router": router,
                "other": self._rule(
                    self.schedule(self.learning_rate, steps), self.weight_decay, self.parameter_scaling
                ),
            },
            _groups,
        )
        clip = optax.clip_by_global_norm(self.clip_norm) if self.clip_norm else optax.identity()
        return optax.chain(clip, rules)

    def _rule(self, rate: optax.Schedule, weight_decay: float, scaling: bool) -> optax.GradientTransformation:
        if self.algorithm == "adamw":
            return optax.adamw(rate, b1=self.b1, b2=self.b2, weight_decay=weight_decay)
        # optax.adafactor's own weight decay ignores the learning rate.
        return optax.chain(
            per_layer(optax.adafactor(multiply_by_parameter_scale=scaling)),
            optax.add_decayed_weights(-weight_decay),
            optax.scale_by_schedule(rate),
        )


def like_parameters(state: Any, parameters: Any, values: Any, otherwise: Any) -> Any:
    """A tree of the form of an optimizer's state: at a parameter's moments its value, else `otherwise`.

    Args:
      state: of an optimizer of the parameters, or the shapes of one.
      parameters: nested dictionaries.
      values: of the same form, with something for each parameter.
      otherwise: for counters, and for statistics of another shape than their parameter's.
    """
    shapes = {path: leaf.shape for path, leaf in traverse_util.flatten_dict(parameters).items()}
    found = traverse_util.flatten_dict(values)

    def value(path: tuple[Any, ...], leaf: Any) -> Any:
        # The path of a moment ends with that of its parameter: the names after the optimizer's own.
        names = itertools.takewhile(lambda key: isinstance(key, DictKey), reversed(path))
        parameter = tuple(key.key for key in names)[::-1]
        return found[parameter] if shapes.get(parameter) == leaf.shape else otherwise

    return jax.tree_util.tree_map_with_path(value, state)


def _groups(tree: dict[str, Any]) -> dict[str, Any]:
    flat = traverse_util.flatten_dict(tree, sep="/")
    groups = {path: "router" if is_router(path) else "other" for path in flat}
    return traverse_util.unflatten_dict(groups, sep="/")
