"""Finds a registered seqio task or mixture by its name, and checks repeated registrations."""

import dataclasses
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from poly_jax.errors import UserError
from poly_jax.suggestion import close_names, did_you_mean

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
    raise UserError(
        f"no seqio mixture or task is registered as {name!r} "
        f"({close_to(name, [*mixtures, *tasks])}); import or register the module that defines it first"
    )


def close_to(name: str, known: Iterable[str]) -> str:
    """Return a phrase for an error message: the closest known names, a few known ones, or their number."""
    known = list(known)
    otherwise = ", ".join(sorted(known)) or "none is known"
    if len(known) > _FEW:
        otherwise = f"{len(known)} others are known"
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
