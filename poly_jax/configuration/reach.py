"""Which bindings of a configuration a program reads: its own, and those of all that they refer to."""

import contextlib
import dataclasses
import inspect
from collections.abc import Callable, Iterable, Sequence
from typing import Any, get_args

import gin

from poly_jax.configurables import PROGRAMS
from poly_jax.configuration.checks import binding_name
from poly_jax.configuration.gin_state import Config
from poly_jax.configuration.types import MisfitError, annotations, fitting
from poly_jax.errors import UserError

Key = tuple[str, str, str]
"""A binding: its scope, the full name of its configurable, and its parameter."""

Root = str | Callable[..., Any]
"""A configurable that a program reads: its name in gin, or the class or function itself."""


@dataclasses.dataclass(frozen=True)
class Reach:
    """What programs read of a configuration.

    Attributes:
      scopes: for the full name of each configurable that is read, the scopes in which it is read.
      bindings: the bindings that are read. A binding that one of an inner scope replaces is not read.
    """

    scopes: dict[str, list[str]]
    bindings: frozenset[Key]

    @classmethod
    def of(cls, config: Config, roots: Iterable[Root]) -> "Reach":
        """Follow the references of a configuration from the configurables that programs read.

        Args:
          config: the bindings, with those that are made by default.
          roots: the configurables that the programs read themselves, in no scope. One that is not registered
            is left out.
        """
        waiting = [("", name) for root in roots if (name := _full_name(root))]
        # A configurable of the user's own may be called by the user's code, which no reference shows.
        waiting += [key for key in config if not _is_ours(key[1])]
        seen, read = dict.fromkeys(waiting), set()
        while waiting:
            scope, selector = waiting.pop()
            for parameter, (bound_in, value) in _values(config, scope, selector).items():
                read.add((bound_in, selector, parameter))
                for reference in gin.config.iterate_references({"": value}):
                    # gin makes what a reference without a scope names in the scope of its owner.
                    key = ("/".join(reference.scopes) or scope, reference.configurable.selector)
                    if key not in seen:
                        seen[key] = None
                        waiting.append(key)
        scopes: dict[str, list[str]] = {}
        for scope, selector in seen:
            scopes.setdefault(selector, []).append(scope)
        return cls(scopes, frozenset(read))


def check_read(given: Sequence[Key], reaches: Sequence[Reach]) -> None:
    """Check that each binding of the user is read by one of several programs.

    Args:
      given: the bindings.
      reaches: what each program reads.

    Raises:
      UserError: no program reads one of the bindings; the message says what to bind instead.
    """
    for key in given:
        if _is_ours(key[1]) and not any(key in reach.bindings for reach in reaches):
            raise UserError(f"--gin.{binding_name(*key)} is given, and {_reason(key, reaches[0])}")


def _reason(key: Key, reach: Reach) -> str:
    """Why a binding is not read, and what to bind instead."""
    scope, selector, parameter = key
    owner = gin.config._REGISTRY.minimal_selector(selector)
    if selector in reach.scopes:
        names = sorted(binding_name(other, selector, parameter) for other in reach.scopes[selector])
        place = f"in the scope {scope!r}" if scope else "outside a scope"
        return f"this configuration does not read it {place}; write --gin.{' or --gin.'.join(names)}"
    if any(owner in names for names in PROGRAMS.values()):
        readers = [
            other
            for other in reach.scopes
            if other.rpartition(".")[2] in _PROGRAM_NAMES and parameter in _parameters(other)
        ]
        names = [binding_name("", other, parameter) for other in readers]
        advice = f"did you mean --gin.{' or --gin.'.join(names)}?" if names else "leave it out"
        return f"this command does not read the settings of {owner}; {advice}"
    places = _places(selector, reach)
    advice = f"bind {' or '.join(places)} to use it, or leave it out" if places else "leave it out"
    return f"this configuration does not use {owner}; {advice}"


def _places(selector: str, reach: Reach) -> list[str]:
    """The bindings that would make a configuration use a configurable, such as `train.loss=@ChoiceLoss()`."""
    text = f"@{gin.config._REGISTRY.minimal_selector(selector)}()"
    reference = gin.config.parse_value(text)
    return sorted(
        f"{binding_name(scope, other, parameter)}={text}"
        for other, scopes in reach.scopes.items()
        for parameter, hint in annotations(gin.config._REGISTRY[other].wrapped).items()
        if parameter in _parameters(other) and _takes(hint, reference)
        for scope in scopes
    )


def _takes(hint: Any, reference: Any) -> bool:
    """Whether a parameter is annotated with a class of this project that the reference makes."""
    # A type from elsewhere, such as a function's, is too wide to be advice.
    own = [option for option in (hint, *get_args(hint)) if _is_of_project(option)]
    with contextlib.suppress(MisfitError):
        return bool(own) and fitting(reference, hint) is reference
    return False


def _values(config: Config, scope: str, selector: str) -> dict[str, tuple[str, Any]]:
    """The values that a configurable gets in a scope, each with the scope in which it is bound."""
    parts = scope.split("/") if scope else []
    values: dict[str, tuple[str, Any]] = {}
    for depth in range(len(parts) + 1):
        outer = "/".join(parts[:depth])
        values |= {name: (outer, value) for name, value in config.get((outer, selector), {}).items()}
    return values


def _full_name(root: Root) -> str | None:
    """The full name of a configurable; None for one that is not registered."""
    found = (
        gin.config._REGISTRY.get_match(root) if isinstance(root, str) else gin.config._inverse_lookup(root)
    )
    return found.selector if found else None


def _is_ours(selector: str) -> bool:
    return selector.startswith("gin.") or _is_of_project(gin.config._REGISTRY[selector].wrapped)


def _is_of_project(content: Any) -> bool:
    return str(getattr(content, "__module__", "")).partition(".")[0] == "poly_jax"


def _parameters(selector: str) -> list[str]:
    return list(inspect.signature(gin.config._REGISTRY[selector].wrapped).parameters)


_PROGRAM_NAMES = [name for names in PROGRAMS.values() for name in names]
