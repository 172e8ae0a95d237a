"""The variants: what adapting to a new task starts from, what it trains, and which runs it fits.

A new variant is one entry in `_ENTRIES`, or a call of `register` in a user's module (docs/new_variant.md).
"""

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING, Literal

from poly_jax.errors import UserError
from poly_jax.literal_fields import check_literal_fields
from poly_jax.suggestion import close_names, did_you_mean
from poly_jax.transfer.gradient_free_search import CombinationSearch, SearchedWeights, SelectedSkills
from poly_jax.transfer.merging import DareLinear, DareTies, MagnitudePrune, Merging, TaskArithmetic, Ties
from poly_jax.transfer.requirements import (
    LOOKS_AT_INPUTS,
    LORA_FACTORS,
    LORA_SKILLS,
    ONE_SKILL,
    OWN_SKILLS,
    ROWS_TO_DRAW,
    ROWS_TO_TRAIN,
    SEVERAL_SKILLS,
    SHARED_SKILLS,
    SKILL_OF_EACH_TASK,
    TRAINED_ROUTER,
    WHOLE_SKILLS,
    Requirement,
    family,
)
from poly_jax.weights.parameter_names import Trainable

# The command line imports this module for the names of the variants, and must not import JAX.
if TYPE_CHECKING:
    from poly_jax.adapters.config import Adapters
    from poly_jax.routing.input_router import InputRouter
    from poly_jax.routing.router import Router


SkillsAtStart = Literal["kept", "combined", "fresh", "none"]


@dataclasses.dataclass(frozen=True)
class Variant:
    """A way to adapt (arXiv 2211.03831, section 3; 2202.13914, section 3.3).

    Attributes:
      name: the name on the command line, in gin and in results.
      skills: initial skills of the new task: "kept" (all skills of the run), "combined" (one skill: the
        average of the run's skills, or the combination that `choice` finds), "fresh", or "none" (no adapters:
        the model itself is trained).
      trainable: part of the new task's parameters that is trained.
      needs: requirements on the run's adapters, checked in this order.
      routes: whether a new task gets a row of the router; otherwise it has one adapter.
      choice: way to choose the combined skills; None for all of them.
      merging: way to merge combined LoRA skills; None for their average.
      router: router of the new tasks where the run's skills belong to one task each; None for a learned one
        with its default settings.
      input_router: makes the router of inputs that takes the place of the run's router; None for the run's.
        Parameters that follow from the skills start so.
      own_tasks: whether the run's own tasks are trained on, because each skill needs its own task.
      trains: False if nothing is trained and the initial values are the result.
      names: both names of a variant that has two: one for runs with several splits (MHR), and one for runs
        with a single split (Poly). Either is accepted everywhere; the one that fits the run is shown.
    """

    name: str
    skills: SkillsAtStart
    trainable: Trainable
    needs: tuple[Requirement, ...] = ()
    routes: bool = False
    choice: CombinationSearch | None = None
    merging: Merging | None = None
    router: "Router | None" = None
    input_router: "Callable[[], InputRouter] | None" = None
    own_tasks: bool = False
    trains: bool = True
    names: tuple[str, str] | None = None

    def __post_init__(self):
        check_literal_fields(self, lambda field: f"variant {self.name!r} has {field}")

    def check(self, adapters: "Adapters") -> None:
        """Check that a run's adapters have what the variant needs.

        Raises:
          UserError: the first requirement that is not met, with what to use instead.
        """
        for need in self.needs:
            if not need.met(adapters):
                raise UserError(f"variant {self.name!r} {need.refusal(adapters)}")

    def new_router(self) -> "Router":
        """The router of the new tasks where the run's skills belong to one task each."""
        from poly_jax.routing.learned import LearnedRouter

        return LearnedRouter() if self.router is None else self.router

    def named_for(self, adapters: "Adapters | None") -> "Variant":
        """The variant, under the name that fits a run with these adapters."""
        if self.names is None or adapters is None:
            return self
        mhr, poly = self.names
        return dataclasses.replace(self, name=mhr if family(adapters) == "mhr" else poly)


def _arrow() -> "InputRouter":
    from poly_jax.routing.arrow import ArrowRouter

    return ArrowRouter()


def _phatgoose() -> "InputRouter":
    from poly_jax.routing.phatgoose import PHATGOOSERouter

    return PHATGOOSERouter()


_SHARED = (SEVERAL_SKILLS, SHARED_SKILLS)
_ROUTED = (SEVERAL_SKILLS, TRAINED_ROUTER)
_MERGED = (SEVERAL_SKILLS, LORA_FACTORS)
_SOUP = (SEVERAL_SKILLS, OWN_SKILLS)
_MERGING: dict[str, Merging] = {
    "task-arithmetic": TaskArithmetic(),
    "ties": Ties(),
    "dare-linear": DareLinear(),
    "dare-ties": DareTies(),
    "magnitude-prune": MagnitudePrune(),
}
_BY_INPUT = (SEVERAL_SKILLS, WHOLE_SKILLS)
_GATES = (*_BY_INPUT, SKILL_OF_EACH_TASK)
_ENTRIES = (
    Variant("mhr", "kept", "adapters", _ROUTED, routes=True, names=("mhr", "poly")),
    Variant("mhr-z", "kept", "router", (*_ROUTED, ROWS_TO_TRAIN), routes=True, names=("mhr-z", "poly-z")),
    Variant("mhr-mu", "combined", "skills", _SHARED, names=("mhr-mu", "poly-mu")),
    Variant("shared", "kept", "skills", (ONE_SKILL,)),
    Variant("soup", "combined", "skills", _SOUP),
    Variant("soup-selected", "combined", "skills", _SOUP, choice=SelectedSkills()),
    Variant("random", "fresh", "adapters", (*_SHARED, TRAINED_ROUTER, ROWS_TO_DRAW), routes=True),
    Variant("private", "fresh", "skills"),
    Variant("full", "none", "all"),
    Variant("zero-shot", "combined", "skills", trains=False),
    Variant("lorahub", "combined", "skills", _MERGED, choice=SearchedWeights(), trains=False),
    *(
        Variant(f"{name}{suffix}", "combined", "skills", _MERGED, merging=merging, trains=bool(suffix))
        for name, merging in _MERGING.items()
        for suffix in ("", "-trained")
    ),
    Variant(
        "arrow", "kept", "router", (*_BY_INPUT, LORA_SKILLS), routes=True, input_router=_arrow, trains=False
    ),
    Variant("phatgoose", "kept", "router", _GATES, routes=True, input_router=_phatgoose, own_tasks=True),
    Variant("routed", "kept", "router", (LOOKS_AT_INPUTS,), routes=True, trains=False),
)

VARIANTS: dict[str, Variant] = {
    name: dataclasses.replace(variant, name=name)
    for variant in _ENTRIES
    for name in variant.names or (variant.name,)
}
"""Every variant, by each of its names."""

_SHIPPED = frozenset(VARIANTS)


def register(variant: Variant) -> None:
    """Add a variant, so that `find` finds it by its name.

    Raises:
      UserError: a variant of poly_jax has the same name.
    """
    if variant.name in _SHIPPED:
        raise UserError(f"variant {variant.name!r} is one of poly_jax's own; give yours another name")
    VARIANTS[variant.name] = variant


def find(name: str, adapters: "Adapters | None" = None) -> Variant:
    """Find a variant by a name, and give it the name that fits a run with these adapters.

    Raises:
      UserError: there is no variant with this name.
    """
    if name not in VARIANTS:
        advice = did_you_mean(close_names(name, VARIANTS)) or f"use one of {', '.join(VARIANTS)}"
        raise UserError(f"variant {name!r} is not known; {advice}")
    return VARIANTS[name].named_for(adapters)


def usual(adapters: "Adapters | None") -> str:
    """The name of the variant that trains most of what a run has learned."""
    if adapters is None:
        return "full"
    if adapters.inventory_size == 1:
        return "shared"
    if adapters.router_follows_skills:
        return "routed"
    return "soup" if adapters.router.owns_skills else family(adapters)
