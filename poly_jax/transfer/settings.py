"""Reads the settings of adapting from a configuration, without adapting a run."""

import dataclasses
from typing import Any

from poly_jax.configuration import Loaded
from poly_jax.experiment import Experiment
from poly_jax.model.loss import Loss
from poly_jax.training.mesh import Partitioning
from poly_jax.training.optimizer import Optimizer
from poly_jax.training.recorded_mesh import arguments_here
from poly_jax.transfer.variants import Variant, find


@dataclasses.dataclass(frozen=True)
class Settings:
    """The arguments of `adapt` that are the same for all tasks and seeds; see `adapt`."""

    experiment: Experiment
    variant: Variant
    shots: int | None
    split_name: str
    steps: int
    batch_size: int
    optimizer: Optimizer
    loss: Loss
    partitioning: Partitioning


def adapting_settings(loaded: Loaded, variant: str) -> Settings:
    """The arguments of `adapt` that a configuration binds, with the program's defaults for the others.

    Args:
      loaded: the configuration.
      variant: name of the variant.

    Raises:
      UserError: there is no such variant, or something is not bound.
    """
    given = {"run": "", "task": "", "output_dir": ""}
    bound = arguments_here(loaded, "adapt", **given, variant=configured(find(variant), loaded))
    arguments = {**loaded.defaults("adapt"), **bound}
    return Settings(**{field.name: arguments[field.name] for field in dataclasses.fields(Settings)})


def configured(variant: Variant, loaded: Loaded) -> Variant:
    """The variant, with the settings that a configuration binds for its parts.

    These are its choice of skills, its way to merge them, and the router of its new tasks where they get a
    row. Settings that are not bound keep the variant's values.
    """
    bound = {
        name: dataclasses.replace(part, **loaded.bound(type(part))) for name, part in _parts(variant).items()
    }
    if "input_router" in bound:
        router = bound["input_router"]
        bound["input_router"] = lambda: router
    return dataclasses.replace(variant, **bound)


def configured_parts(variant: Variant) -> list[type]:
    """The classes of a variant's parts, whose settings `configured` takes from a configuration."""
    return [type(part) for part in _parts(variant).values()]


def _parts(variant: Variant) -> dict[str, Any]:
    """The parts of a variant that have settings, by the attribute of the variant."""
    parts: dict[str, Any] = {
        "choice": variant.choice,
        "merging": variant.merging,
        "router": variant.new_router() if variant.routes else None,
        "input_router": None if variant.input_router is None else variant.input_router(),
    }
    return {name: part for name, part in parts.items() if part is not None}
