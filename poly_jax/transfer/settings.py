"""What a run's recipe says of adapting it, without adapting."""

import dataclasses
import inspect
from typing import Any

import gin

from poly_jax.experiment import Experiment
from poly_jax.model.loss import Loss, TokenLoss
from poly_jax.training.optimizer import Optimizer
from poly_jax.transfer.adapt import adapt


@dataclasses.dataclass(frozen=True)
class Settings:
    """The parameters of `adapt` that are the same for all tasks and seeds."""

    experiment: Experiment
    steps: int
    batch_size: int
    shots: int | None
    split_name: str
    optimizer: Optimizer
    loss: Loss


def bound_settings() -> Settings:
    """What gin binds of `adapt`, with the program's defaults for the rest."""
    bound: dict[str, Any] = gin.get_bindings("adapt")
    defaults = {name: p.default for name, p in inspect.signature(adapt).parameters.items()}
    chosen = {
        field.name: bound.get(field.name, defaults[field.name]) for field in dataclasses.fields(Settings)
    }
    with gin.config_scope("adapt"):
        chosen["optimizer"] = chosen["optimizer"] or Optimizer()
        chosen["loss"] = chosen["loss"] or TokenLoss()
    if "experiment" not in bound:
        chosen["experiment"] = gin.get_configurable("Experiment")()
    return Settings(**chosen)
