"""What another system's adapters become: skills and routers under T5X's names, and their settings."""

import dataclasses
from collections.abc import Iterable
from typing import Any

from poly_jax.adapters.config import Adapters
from poly_jax.adapters.skill import Skill
from poly_jax.configuration.gin_text import bindings
from poly_jax.errors import UserError
from poly_jax.model.transformer import Transformer, parameter_shapes
from poly_jax.routing.router import Router
from poly_jax.weights import t5_names as names
from poly_jax.weights.layer_trees import stack_layers
from poly_jax.weights.parameter_names import Granularity, is_adapter_parameter, layer_number
from poly_jax.weights.tree import ParameterTree, check_tree, split


@dataclasses.dataclass(frozen=True)
class AdapterCheckpoint:
    """Adapters as this project has them, with layers apart.

    Attributes:
      tree: `.../skills/...` and `.../router/...` in nested dictionaries.
      skill: kind of adapter.
      router: how a task picks; None where the checkpoint does not say.
      n_tasks: rows of its tables.
      n_skills: size of the inventory.
      n_splits: heads that are mixed on their own.
      sites: the adapted sites, see `poly_jax.weights.t5_dimensions`.
      granularity: who shares a router.
    """

    tree: ParameterTree
    skill: Skill
    router: Router | None
    n_tasks: int
    n_skills: int
    n_splits: int
    sites: tuple[str, ...]
    granularity: Granularity = "fine"

    def adapters(self, source: object) -> Adapters:
        """The settings as the model takes them.

        Raises:
          UserError: the checkpoint (`source`, for the message) does not say how a task picks.
        """
        if self.router is None:
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
        """Bindings of `Adapters`, of its skill and its router."""
        lines = ["Experiment.adapters = @Adapters"]
        for name, part in (("skill", self.skill), ("router", self.router)):
            if part is not None:
                lines += [f"Adapters.{name} = @{type(part).__name__}()", *bindings(part)]
        for name in ("n_skills", "n_splits", "sites", "granularity"):
            lines.append(f"Adapters.{name} = {getattr(self, name)!r}")
        return lines


def lay_out(tree: dict[str, Any], model: Transformer, source: object) -> dict[str, Any]:
    """The tree with its layers as the model has them: apart, or stacked where it scans them.

    Args:
      tree: with layers apart.
      model: with the adapters.
      source: where the tree came from, for the message.

    Raises:
      UserError: the tree is not of the model's adapters; see `check_tree`.
    """
    if model.config.scan_layers:
        tree = stack_layers(tree)
    check_tree(split(parameter_shapes(model)[0], is_adapter_parameter)[0], tree, source)
    return tree


def map_of_module(module: str) -> str | None:
    """T5X's path of a map that can be adapted, from Hugging Face's name of it; None of anything else."""
    path = names.to_t5x(module)
    if path is None or names.site(path) == path or names.leaf(path)[0] != "kernel":
        return None
    return path


def adapted_sites(paths: Iterable[str], source: object) -> tuple[str, ...]:
    """The sites of adapted maps.

    Raises:
      UserError: a site is adapted in some layers of its stack and not in others.
    """
    depths = {"encoder": 0, "decoder": 0}
    layers: dict[str, set[int]] = {}
    for path in paths:
        stack, part = path.split("/")[:2]
        number = layer_number(part)
        assert number is not None, path
        depths[stack] = max(depths[stack], number + 1)
        layers.setdefault(names.site(path), set()).add(number)
    for site, found in layers.items():
        if lacking := set(range(depths[site.split("/")[0]])) - found:
            raise UserError(
                f"{source} does not adapt {site} in layers {sorted(lacking)}; all layers have to be adapted"
            )
    return tuple(sorted(layers))
