"""Another system's adapters in this project's form: skills and routers by T5X's names, and settings."""

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from poly_jax.adapters.config import Adapters
from poly_jax.adapters.ia3 import IA3
from poly_jax.adapters.lora import LoRA
from poly_jax.configuration.gin_text import bindings
from poly_jax.errors import UserError
from poly_jax.model.parameters import parameter_shapes
from poly_jax.model.transformer import Transformer
from poly_jax.routing.router import Router
from poly_jax.weights import t5_names as names
from poly_jax.weights.layer_trees import stack_layers
from poly_jax.weights.parameter_names import (
    Granularity,
    is_adapter_parameter,
    layer_number,
    place_of,
    stack_of,
)
from poly_jax.weights.t5_dimensions import T5Dimensions
from poly_jax.weights.tree import ParameterTree, check_tree, split


@dataclasses.dataclass(frozen=True)
class AdapterCheckpoint:
    """Adapters of another system, with separate layers.

    Attributes:
      tree: nested dictionaries with `.../skills/...` and `.../router/...`.
      skill: kind of skill.
      router: router of the tasks; None where the checkpoint does not say.
      n_tasks: number of tasks; None where the checkpoint does not say.
      n_skills: size of the inventory.
      n_splits: number of splits (MHR heads), which are mixed separately.
      sites: the adapted sites; see `poly_jax.weights.t5_dimensions`.
      granularity: the maps that share a router.
    """

    tree: ParameterTree
    skill: LoRA | IA3
    router: Router | None
    n_tasks: int | None
    n_skills: int
    n_splits: int
    sites: tuple[str, ...]
    granularity: Granularity = "fine"

    def adapters(self, source: object) -> Adapters:
        """Return the settings in the form that the model uses.

        Raises:
          UserError: the checkpoint (`source`, for the message) does not say how tasks pick skills.
        """
        if self.router is None or self.n_tasks is None:
            raise UserError(
                f"{source} does not say how tasks pick skills; import it as a run, with Adapters.router bound"
            )
        return Adapters(
            skill=self.skill,
            router=self.router,
            n_tasks=self.n_tasks,
            n_skills=self.n_skills,
            n_splits=self.n_splits,
            sites=self.sites,
            granularity=self.granularity,
        )

    def gin_lines(self) -> list[str]:
        """Return the bindings of `Adapters`, its skill and its router, as lines of a gin file."""
        lines = ["Experiment.adapters = @Adapters"]
        for name, part in (("skill", self.skill), ("router", self.router)):
            if part is not None:
                lines += [f"Adapters.{name} = @{type(part).__name__}()", *bindings(part)]
        for name in ("n_skills", "n_splits", "sites", "granularity"):
            lines.append(f"Adapters.{name} = {getattr(self, name)!r}")
        return lines


def lay_out(tree: dict[str, Any], model: Transformer, source: object) -> dict[str, Any]:
    """Arrange the layers as in the model: separate, or stacked where the model scans them.

    Args:
      tree: skills and routers, one per layer.
      model: the T5 with these adapters.
      source: name of their checkpoint, for the message.

    Raises:
      UserError: the tree does not hold the parameters of the model's adapters; see `check_tree`.
    """
    if model.config.scan_layers:
        tree = stack_layers(tree)
    check_tree(split(parameter_shapes(model)[0], is_adapter_parameter)[0], tree, source)
    return tree


def map_of_module(module: str) -> str | None:
    """Return T5X's path of a map that can be adapted, from Hugging Face's name; None for other modules."""
    path = names.to_t5x(module)
    if path is None or names.site(path) == path or names.weight_of(path)[0] != "kernel":
        return None
    return path


def in_every_layer(paths: Iterable[str], dimensions: T5Dimensions) -> list[str]:
    """Return T5X's paths of the maps at the same sites as these, in every layer of their stacks."""
    depths = {"encoder": dimensions.num_encoder_layers, "decoder": dimensions.num_decoder_layers}
    places = []
    for site in adapted_sites(paths):
        places += [names.map_in_layer(site, layer) for layer in range(depths[stack_of(site)])]
    return places


def adapted_sites(paths: Iterable[str]) -> tuple[str, ...]:
    """Return the sites of adapted maps, in order."""
    return tuple(sorted({names.site(path) for path in paths}))


def refuse_missing_layers(missing: Iterable[str], source: object) -> None:
    """Raise a UserError with the sites and layers of the maps that lack tensors, if there are any."""
    layers: dict[str, list[int]] = {}
    for path in missing:
        layers.setdefault(names.site(path), []).append(layer_number(path) or 0)
    if layers:
        found = [f"{site} in layers {sorted(numbers)}" for site, numbers in sorted(layers.items())]
        raise UserError(
            f"{source} does not adapt {', nor '.join(found[:3])}{' ...' if found[3:] else ''}; the tensors of"
            " these layers are missing: take the whole adapter"
        )


def with_every_layer(
    leaves: Mapping[str, np.ndarray], dimensions: T5Dimensions, skill: LoRA | IA3
) -> dict[str, np.ndarray]:
    """Add adapters that change nothing to the layers that have no adapter.

    Args:
      leaves: arrays by '/'-joined name, such as `encoder/layers_0/attention/query/skills/lora_a`.
      dimensions: dimensions of the T5 that they adapt.
      skill: kind of the skills, whose `neutral` value fills the added arrays.
    """
    below: dict[str, dict[str, np.ndarray]] = {}
    adapted = {place_of(name) for name in leaves}
    for name, leaf in leaves.items():
        below.setdefault(names.site(place_of(name)), {})[name.removeprefix(f"{place_of(name)}/")] = leaf
    filled = dict(leaves)
    for place in set(in_every_layer(adapted, dimensions)) - adapted:
        for name, leaf in below[names.site(place)].items():
            filled[f"{place}/{name}"] = np.full_like(leaf, skill.neutral)
    return filled
