"""Which sites of a model get which skills, and who picks among them."""

import dataclasses
import functools
import re
from collections.abc import Sequence
from typing import get_args

import gin

from poly_jax.adapters.skill import Skill
from poly_jax.errors import UserError
from poly_jax.routing.router import NamesTasks, Router, Sizes
from poly_jax.weights.parameter_names import Granularity

GRANULARITIES = get_args(Granularity)


@gin.configurable
@dataclasses.dataclass(frozen=True)
class Adapters:
    """An inventory of skills at every selected site, and the router that mixes them.

    Attributes:
      skill: kind of adapter.
      router: how a task picks.
      n_tasks: rows of a learned router; task ids are below it.
      n_skills: size of the inventory (K), where the router does not fix it.
      n_splits: heads that are mixed on their own (h); 1 is Poly, more is MHR. Divides every adapted width.
      sites: regular expressions over site paths (`encoder/attention/query`, listed by
        `poly_jax.weights.t5_dimensions.sites`); a site is adapted when one of them matches its whole path.
      granularity: who shares a router: "fine" is one per site, "layer" one per sub-layer (attention or MLP),
        "block" one per transformer block, "stack" one for the encoder and one for the decoder, "coarse" one
        for the model.
      private_skill: a skill that every task has for itself beside the inventory, applied after the mix and
        with full weight (C-Poly, arXiv 2312.03248); None for none. Several LoRA skills of a task's own would
        be one of their ranks' sum.
    """

    skill: Skill
    router: Router
    n_tasks: int
    n_skills: int = 8
    n_splits: int = 1
    sites: tuple[str, ...] = (".*",)
    granularity: Granularity = "fine"
    private_skill: Skill | None = None

    def __post_init__(self):
        sites = (self.sites,) if isinstance(self.sites, str) else tuple(self.sites)
        object.__setattr__(self, "sites", sites)
        if self.granularity not in GRANULARITIES:
            raise UserError(
                f"Adapters.granularity is {self.granularity!r}; use one of {', '.join(GRANULARITIES)}"
            )
        for field in ("n_tasks", "n_skills", "n_splits"):
            if getattr(self, field) < 1:
                raise UserError(f"Adapters.{field} is {getattr(self, field)}; it must be at least 1")

    @functools.cached_property
    def inventory_size(self) -> int:
        """Skills at each site, as the router needs them."""
        return self.router.n_skills(self.n_skills, self.n_tasks)

    @property
    def sizes(self) -> Sizes:
        """The sizes of the router's table."""
        return Sizes(self.n_tasks, self.n_splits, self.inventory_size)

    def for_tasks(self, names: Sequence[str]) -> "Adapters":
        """These for the tasks of these names, in the order of their ids.

        Raises:
          UserError: the router does not know one of them.
        """
        router = self.router
        if isinstance(router, NamesTasks):
            router = router.for_tasks(tuple(names))
        return dataclasses.replace(self, router=router, n_tasks=len(names))

    def adapts(self, site: str) -> bool:
        """Whether the site of this path has skills."""
        return any(re.fullmatch(pattern, site) for pattern in self.sites)

    def check(self, widths: dict[str, tuple[int, int]]) -> None:
        """Raises a UserError where this does not fit a model with these sites (path to widths)."""
        for pattern in self.sites:
            try:
                matched = [site for site in widths if re.fullmatch(pattern, site)]
            except re.error as e:
                raise UserError(f"Adapters.sites has {pattern!r}, not a regular expression: {e}") from None
            if not matched:
                raise UserError(
                    f"Adapters.sites has {pattern!r}, which matches no site; the sites are"
                    f" {', '.join(widths)}"
                )
            for site in matched:
                for width in widths[site]:
                    if width % self.n_splits:
                        raise UserError(
                            f"Adapters.n_splits is {self.n_splits}, which does not divide the width {width}"
                            f" of {site}"
                        )
        _ = self.inventory_size
