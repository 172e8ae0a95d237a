"""The requirements of variants on the run that they adapt, and what to use instead if they are not met."""

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING

# The command line imports this module for the names of the variants, and must not import JAX.
if TYPE_CHECKING:
    from poly_jax.adapters.config import Adapters

_OF_OWN_SKILLS = "'soup', 'soup-selected' or 'lorahub'"


@dataclasses.dataclass(frozen=True)
class Requirement:
    """A requirement of a variant on a run's adapters.

    Attributes:
      met: predicate that says whether adapters meet the requirement.
      refusal: the rest of the sentence that begins with "variant NAME": what the variant needs or does, what
        the run has, and what to use instead.
    """

    met: Callable[["Adapters"], bool]
    refusal: Callable[["Adapters"], str]


def family(adapters: "Adapters") -> str:
    """ "mhr" for adapters that are mixed per split (MHR head), "poly" for adapters with one mix."""
    return "mhr" if adapters.n_splits > 1 else "poly"


def _instead_of_one_adapter(adapters: "Adapters") -> str:
    own = family(adapters)
    return _OF_OWN_SKILLS if adapters.router.owns_skills else f"'{own}', '{own}-z' or '{own}-mu'"


def _average_of(adapters: "Adapters") -> str:
    return "soup" if adapters.router.owns_skills else f"{family(adapters)}-mu"


def _has_rows(adapters: "Adapters") -> bool:
    return bool(adapters.router.parameters(adapters.sizes)) or adapters.router.reads_inputs


def _has_lora(adapters: "Adapters") -> bool:
    from poly_jax.adapters.lora import LoRA

    return isinstance(adapters.skill, LoRA)


def _mixes_lora_factors(adapters: "Adapters") -> bool:
    from poly_jax.adapters.lora import LoRA

    return isinstance(adapters.skill, LoRA) and not adapters.skill.merge_after


ONE_SKILL = Requirement(
    lambda adapters: adapters.inventory_size == 1,
    lambda adapters: (
        f"continues one adapter, and this run has {adapters.inventory_size} skills; use"
        f" {_instead_of_one_adapter(adapters)}"
    ),
)
SEVERAL_SKILLS = Requirement(
    lambda adapters: adapters.inventory_size > 1,
    lambda adapters: (
        "needs an inventory of skills, and this run has one skill; use 'shared', or 'private' for a fresh one"
    ),
)
OWN_SKILLS = Requirement(
    lambda adapters: adapters.router.owns_skills,
    lambda adapters: (
        "averages adapters that were trained apart, as in a run with routers/private.gin; use"
        f" '{family(adapters)}-mu' for the average of this run's skills"
    ),
)
SHARED_SKILLS = Requirement(
    lambda adapters: not adapters.router.owns_skills,
    lambda adapters: (
        f"needs skills that tasks share, and in this run each task has one of its own; use {_OF_OWN_SKILLS}"
    ),
)
ROWS_TO_DRAW = Requirement(
    _has_rows,
    lambda adapters: f"draws a router's row, and {type(adapters.router).__name__} has none; use 'private'",
)
ROWS_TO_TRAIN = Requirement(
    lambda adapters: _has_rows(adapters) or adapters.router.owns_skills,
    lambda adapters: (
        f"trains the router only, and {type(adapters.router).__name__} has nothing to train; use"
        f" '{family(adapters)}' or '{family(adapters)}-mu'"
    ),
)
WHOLE_SKILLS = Requirement(
    lambda adapters: adapters.n_splits == 1,
    lambda adapters: (
        f"routes whole skills, and this run mixes {adapters.n_splits} splits of them; use"
        f" '{family(adapters)}', '{family(adapters)}-z' or '{family(adapters)}-mu'"
    ),
)
TRAINED_ROUTER = Requirement(
    lambda adapters: not adapters.router_follows_skills,
    lambda adapters: (
        f"trains a router, and {type(adapters.router).__name__} was made for the run's skills; use 'routed'"
        " to keep it, or adapt the run that has the skills"
    ),
)
SKILL_OF_EACH_TASK = Requirement(
    lambda adapters: adapters.router.owns_skills,
    lambda adapters: (
        "trains a gate on the task of each skill, and in this run tasks share skills; use 'arrow', or a run"
        " with routers/private.gin"
    ),
)
LORA_SKILLS = Requirement(
    _has_lora,
    lambda adapters: (
        f"reads LoRA's factors, and this run's skills are {type(adapters.skill).__name__}; use"
        f" 'phatgoose' or {_average_of(adapters)!r}"
    ),
)
LOOKS_AT_INPUTS = Requirement(
    lambda adapters: adapters.router.reads_inputs,
    lambda adapters: (
        "keeps a router that looks at inputs, and this run's"
        f" {type(adapters.router).__name__} looks at tasks; use 'arrow' to make one, or 'zero-shot'"
    ),
)
LORA_FACTORS = Requirement(
    _mixes_lora_factors,
    lambda adapters: (
        f"sums LoRA's factors, and this run's skills are mixed in another way; use {_average_of(adapters)!r}"
    ),
)
