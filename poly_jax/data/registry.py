"""Finds a registered seqio task or mixture by its name, and checks repeated registrations."""

import dataclasses
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from poly_jax.errors import UserError
from poly_jax.suggestion import close_names, did_you_mean, nearest_names

if TYPE_CHECKING:
    import seqio

_FEW = 5


def mixture_or_task(name: str) -> "seqio.Mixture | seqio.Task":
    """Return the registered mixture or task of a name; a mixture has precedence.

    Raises:
      UserError: no mixture or task has this name; the message lists the closest names.
    """
    from poly_jax.data.quiet import seqio

    mixtures, tasks = seqio.MixtureRegistry.names(), seqio.TaskRegistry.names()
    if name in mixtures:
        return seqio.MixtureRegistry.get(name)
    if name in tasks:
        return seqio.TaskRegistry.get(name)
    close = close_to(name, [*mixtures, *tasks], "seqio.TaskRegistry.names() has all tasks")
    raise UserError(
        f"no seqio mixture or task is registered as {name!r} ({close}); import or register the module that "
        "defines it first"
    )


def tasks_without_split(name: str, split: str) -> list[str]:
    """Return the names of a registered mixture's tasks that lack a split, which seqio leaves out.

    Raises:
      UserError: no mixture or task has this name.
    """
    found = mixture_or_task(name)
    return sorted(task.name for task in getattr(found, "tasks", [found]) if split not in task.splits)


def close_to(name: str, known: Iterable[str], where: str) -> str:
    """Return a phrase for an error message: the names that may be meant, or known ones.

    Args:
      name: the name that is not known.
      known: the known names.
      where: the place of all known names, as a clause; for a message that has only the nearest ones.
    """
    known = list(known)
    otherwise = ", ".join(sorted(known)) or "none is known"
    if len(known) > _FEW:
        nearest = ", ".join(map(repr, nearest_names(name, known, _FEW)))
        otherwise = f"the nearest of {len(known):,} known names are {nearest}; {where}"
    return did_you_mean(close_names(name, known)) or otherwise


def check_registered_alike(prefix: str, before: Any, now: Any) -> None:
    """Raise a UserError where two registrations (dataclasses of one class) differ under one prefix."""
    for field in dataclasses.fields(before):
        old, new = getattr(before, field.name), getattr(now, field.name)
        if old != new:
            raise UserError(
                f"{prefix!r} is registered with {field.name} {old}, and cannot be registered again with "
                f"{new}; give register another prefix to have both"
            )
