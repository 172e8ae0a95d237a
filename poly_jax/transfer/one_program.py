"""What adaptations have in common that one program makes at once."""

import dataclasses
from collections.abc import Sequence
from typing import Any

from poly_jax.errors import UserError
from poly_jax.model.transformer import Transformer
from poly_jax.training.optimizer import Optimizer
from poly_jax.transfer.adaptation import Adaptation
from poly_jax.transfer.ranks import without_rank
from poly_jax.transfer.variants import Variant


@dataclasses.dataclass(frozen=True)
class Common:
    """The common part of adaptations in one program; equal parts can share one.

    Attributes:
      model: the model of the new task. Its LoRA skills lack their rank and scale where the optimizer looks at
        each number alone: then ranks may differ (`poly_jax.transfer.ranks`).
      optimizer: the optimizer without its learning rates, warm-up and decay, which may differ.
      trains: whether the variants train. Adaptations that take no step should not wait for others.
    """

    model: Transformer
    optimizer: Optimizer
    trains: bool


def common(model: Transformer, variant: Variant, optimizer: Optimizer) -> Common:
    """What an adaptation must have in common with others.

    Args:
      model: the model of the new task.
      variant: the way to adapt.
      optimizer: the optimizer of the adaptation.
    """
    adapters = model.adapters
    if adapters is not None and optimizer.algorithm == "adamw":
        adapters = dataclasses.replace(adapters, skill=without_rank(adapters.skill))
    rule = dataclasses.replace(
        optimizer, learning_rate=0.0, router_learning_rate=0.0, warmup_fraction=0.0, decay="constant"
    )
    return Common(Transformer(model.config, adapters), rule, variant.trains)


def check_common(adaptations: Sequence[Adaptation]) -> Common:
    """Check that one program can make these adaptations, and return what they have in common.

    Raises:
      UserError: there is none, or two differ in something that is not an argument of the program.
    """
    if not adaptations:
        raise UserError("there is no adaptation to stack; give at least one")
    parts = [common(each.model, each.variant, each.optimizer) for each in adaptations]
    for field, differing in _DIFFERING.items():
        values: list[Any] = [getattr(part, field) for part in parts]
        if any(value != values[0] for value in values):
            raise UserError(f"{differing} cannot be stacked; adapt in several stacks")
    first, *others = adaptations
    if any(each.parameters is not first.parameters for each in others) and all(
        each.variant.trainable == "router" for each in adaptations
    ):
        raise UserError(
            "adaptations that train routers alone share the skills of one run; adapt other runs in stacks of"
            " their own"
        )
    return parts[0]


_DIFFERING = {
    "optimizer": "optimizers that differ in more than learning rates, warm-up and decay",
    "model": "models of new tasks that differ in more than the rank of their LoRA skills",
    "trains": "variants that train and variants that do not",
}
