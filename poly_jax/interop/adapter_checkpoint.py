"""What another system's adapters become: skills and routers under T5X's names, and their settings."""

import dataclasses
import re
from collections.abc import Iterable
from typing import Literal

from poly_jax.adapters.config import Adapters
from poly_jax.adapters.skill import Skill
from poly_jax.configuration.gin_text import bindings
from poly_jax.errors import UserError
from poly_jax.interop import names
from poly_jax.interop.tree import ParameterTree
from poly_jax.routing.router import Router

Granularity = Literal["fine", "layer", "block", "stack", "coarse"]


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
      sites: the adapted sites, see `poly_jax.model.sites`.
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


def adapted_map(module: str) -> str | None:
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
        m = re.match(r"(\w+)/layers_(\d+)/", path)
        assert m is not None, path
        depths[m[1]] = max(depths[m[1]], int(m[2]) + 1)
        layers.setdefault(names.site(path), set()).add(int(m[2]))
    for site, found in layers.items():
        if lacking := set(range(depths[site.split("/")[0]])) - found:
            raise UserError(
                f"{source} does not adapt {site} in layers {sorted(lacking)}; all layers have to be adapted"
            )
    return tuple(sorted(layers))


_SHARERS: dict[str, int | None] = {"fine": None, "layer": -1, "block": 2, "stack": 1, "coarse": 0}


def router_place(path: str, granularity: str) -> str:
    """Path of the router of an adapted map, such as `encoder/layers_0/mlp/router`."""
    return "/".join([*path.split("/")[: _SHARERS[granularity]], "router"])
