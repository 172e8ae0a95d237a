"""The choice of the sites that get skills, of their kind, and of the router that mixes them."""

import dataclasses
import functools
import math
import re
from collections.abc import Sequence

from poly_jax.adapters.skill import Skill, TaskSkill, TokenSkill
from poly_jax.counts import check_counts
from poly_jax.errors import UserError
from poly_jax.literal_fields import check_literal_fields
from poly_jax.routing.router import Router, Sizes
from poly_jax.weights.parameter_names import Granularity


@dataclasses.dataclass(frozen=True)
class Adapters:
    """An inventory of skills at every selected site, and the router that mixes them.

    Attributes:
      skill: kind of the skills in the inventory.
      router: the router that mixes the skills, for each task or by what it reads.
      n_tasks: number of tasks, which are the rows of a learned router's table. Task ids are below it.
      n_skills: number of skills in the inventory (K), unless the router fixes it.
      n_splits: number of splits (MHR heads, h) that mix on their own: 1 is Poly, more is MHR. It must divide
        the widths of every adapted site.
      sites: regular expressions over site paths (`encoder/attention/query`, listed by
        `poly_jax.weights.t5_dimensions.sites`); a site is adapted when one of them matches its whole path.
      granularity: the sites that share a router: "fine" has one for each site, "layer" one for each sub-layer
        (attention or MLP), "block" one for each transformer block, "stack" one each for the encoder and the
        decoder, "coarse" one for the model.
      private_skill: the kind of skill that each task has to itself beside the inventory. It is applied after
        the mix, with weight 1 (C-Poly, arXiv 2312.03248). None for no such skill. Several private LoRA skills
        per task would equal one LoRA whose rank is their sum, so there is only one.
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
        check_literal_fields(self)
        for field, kind, given in (("skill", Skill, self.skill), ("router", Router, self.router)):
            if isinstance(given, type) or not isinstance(given, kind):
                example = "LoRA()" if kind is Skill else "LearnedRouter()"
                raise UserError(f"Adapters.{field} is {given!r}; give a {field}, such as {example}")
        check_counts("Adapters", n_tasks=self.n_tasks, n_skills=self.n_skills, n_splits=self.n_splits)
        if self.router.reads_inputs:
            self._check_input_router()
        if isinstance(self.skill, TaskSkill):
            self._check_task_skill()
        if isinstance(self.private_skill, TaskSkill):
            raise UserError(
                f"Adapters.private_skill is {type(self.private_skill).__name__}, whose skills share one A;"
                " use LoRA or IA3"
            )

    def _check_task_skill(self) -> None:
        name, router = type(self.skill).__name__, type(self.router).__name__
        if self.private_skill is not None:
            raise UserError(
                f"Adapters.private_skill is {type(self.private_skill).__name__}, and with {name} each task"
                " has parameters of its own already; bind Adapters.private_skill = None"
            )
        if self.router.reads_inputs:
            raise UserError(
                f"{router} needs no task, and {name} has parameters of each task; use LoRA, or a router of"
                " tasks such as LearnedRouter"
            )
        if self.router.owns_skills:
            raise UserError(
                f"{router} gives each task a skill of its own, and all skills of {name} share one A; use"
                " LoRA, or a router such as LearnedRouter"
            )

    def _check_input_router(self) -> None:
        name = type(self.router).__name__
        if self.granularity != "fine":
            raise UserError(
                f"Adapters.granularity is {self.granularity!r}, and {name} reads the input of each site; bind"
                " Adapters.granularity = 'fine'"
            )
        if self.n_splits != 1:
            raise UserError(
                f"Adapters.n_splits is {self.n_splits}, and {name} mixes whole skills; bind"
                " Adapters.n_splits = 1"
            )
        if self.routes_tokens and not isinstance(self.skill, TokenSkill):
            needed = ("apply_by_token", "side_by_side", "cheaper_by_token")
            missing = next((method for method in needed if not hasattr(self.skill, method)), needed[0])
            raise UserError(
                f"{name} mixes skills for each token, and {type(self.skill).__name__} has no method"
                f" `{missing}`; use LoRA or IA3, or a router of tasks such as LearnedRouter"
            )

    @property
    def routes_tokens(self) -> bool:
        """Whether each position has weights of its own."""
        return self.router.reads_inputs and not self.router.pools

    @property
    def router_follows_skills(self) -> bool:
        """Whether the router is made for skills that are there already, and no task's loss trains it."""
        return not self.router.learned

    @property
    def tasks_own_parameters(self) -> bool:
        """Whether each task has parameters of its own beside the inventory and the router."""
        return self.private_skill is not None or isinstance(self.skill, TaskSkill)

    @functools.cached_property
    def inventory_size(self) -> int:
        """Number of skills at each site, as the router fixes it or takes it from `n_skills`."""
        return self.router.n_skills(self.n_skills, self.n_tasks)

    @property
    def sizes(self) -> Sizes:
        """The sizes of the router's table."""
        return Sizes(self.n_tasks, self.n_splits, self.inventory_size)

    def for_tasks(self, names: Sequence[str]) -> "Adapters":
        """The adapters for the tasks of these names, given in the order of their ids.

        Raises:
          UserError: the router does not know one of the names.
        """
        return dataclasses.replace(self, router=self.router.for_tasks(tuple(names)), n_tasks=len(names))

    def adapts(self, site: str) -> bool:
        """Whether the site at this path has skills."""
        return any(re.fullmatch(pattern, site) for pattern in self.sites)

    def check(self, widths: dict[str, tuple[int, int]]) -> None:
        """Raise a UserError unless the adapters fit a model with these sites (their widths by path)."""
        adapted: set[str] = set()
        for pattern in self.sites:
            try:
                matched = [site for site in widths if re.fullmatch(pattern, site)]
            except re.error as e:
                raise UserError(f"Adapters.sites has {pattern!r}, not a regular expression ({e})") from None
            if not matched:
                raise UserError(
                    f"Adapters.sites has {pattern!r}, which matches no site; choose from {', '.join(widths)}"
                )
            adapted.update(matched)
        if not adapted:
            raise UserError(f"Adapters.sites is empty; choose from {', '.join(widths)}")
        common = math.gcd(*(width for site in adapted for width in widths[site]))
        for site in (site for site in widths if site in adapted):
            for width in widths[site]:
                if width % self.n_splits:
                    raise UserError(
                        f"Adapters.n_splits is {self.n_splits}, which does not divide the width {width} of"
                        f" {site}; use a divisor of {common}, which divides all adapted widths"
                    )
        _ = self.inventory_size
