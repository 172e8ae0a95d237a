"""Checks of the bindings that gin does not make: macros have values, and values are of the right types."""

import os
from collections.abc import Iterable, Iterator
from typing import Any, Literal, get_origin

import gin

from poly_jax.configurables import PATHS
from poly_jax.configuration import explanation
from poly_jax.configuration.edges import followed
from poly_jax.configuration.gin_state import Config
from poly_jax.configuration.types import MisfitError, annotations, description, fitting
from poly_jax.errors import UserError


def macros_defined(config: Config) -> set[str]:
    """Names of the macros that have a value."""
    return {scope for scope, selector in config if selector == "gin.macro"}


def check_overridden_macros(config: Config, bindings: Iterable[str], defined: set[str]) -> None:
    """Raises a UserError where a binding sets a macro that no gin file defines or uses."""
    known = defined | set(_references(config, "gin.macro"))
    for binding in bindings:
        name = binding.partition("=")[0].strip()
        if "." in name.rpartition("/")[2] or name in known:
            continue
        owners = [owner for owner, names in explanation.parameters().items() if name in names]
        advice = explanation.similar(name, known) or "".join(
            f"; did you mean --gin.{owner}.{name}?" for owner in owners[:1]
        )
        raise UserError(f"--gin.{binding}: no gin file defines or uses the macro {name!r}{advice}")


def check_unset(config: Config) -> None:
    """Raises a UserError where a macro is used that has no value, or something is left at `%gin.REQUIRED`."""
    if missing := required(config):
        raise explanation.unset(missing)


def required(config: Config) -> list[str]:
    """Names of the bindings and macros that are left at `%gin.REQUIRED`.

    Raises:
      UserError: a macro is used that has no value.
    """
    defined = macros_defined(config)
    for name, value in _named(config):
        for macro in _references(value, "gin.macro"):
            if macro not in defined:
                advice = explanation.similar(macro, defined) or f"; add --gin.{macro}=VALUE"
                raise UserError(f"{name} is bound to %{macro}, which has no value{advice}")
    return left_open(config)


def left_open(config: Config) -> list[str]:
    """Names of the bindings and macros that are left at `%gin.REQUIRED`, whatever macros have values."""
    return [name for name, value in _named(config) if "gin.REQUIRED" in _references(value, "gin.constant")]


def _named(config: Config) -> Iterator[tuple[str, Any]]:
    """The name and the value of each binding and macro."""
    for (scope, selector), values in config.items():
        for parameter, value in values.items():
            yield scope if selector == "gin.macro" else binding_name(scope, selector, parameter), value


def typed(config: Config) -> Config:
    """The configuration with values as the annotations of their parameters take them; see `types.fitting`.

    Paths are expanded.

    Raises:
      UserError: a value is of another type.
    """
    done: Config = {}
    for (scope, selector), values in config.items():
        hints = {} if selector.startswith("gin.") else annotations(gin.config._REGISTRY[selector].wrapped)
        paths = PATHS.get(selector, ())
        done[scope, selector] = bound = dict(values)
        for parameter, value in values.items():
            content = followed(value, config)
            try:
                new = fitting(content, hints.get(parameter, Any))
            except MisfitError:
                name = binding_name(scope, selector, parameter)
                raise UserError(f"{name} is {content!r}; {_expected(hints[parameter])}") from None
            new = expanded(new) if parameter in paths and isinstance(new, str) else new
            # A macro stays in its place where its value is right as it is.
            if new is not content:
                bound[parameter] = new
    return done


def expanded(path: str) -> str:
    """A path with `~` and environment variables replaced by what they stand for."""
    return os.path.expanduser(os.path.expandvars(path))


def binding_name(scope: str, selector: str, parameter: str) -> str:
    """A parameter as gin files name it."""
    name = f"{gin.config._REGISTRY.minimal_selector(selector)}.{parameter}"
    return f"{scope}/{name}" if scope else name


def _expected(hint: Any) -> str:
    return f"use {description(hint)}" if get_origin(hint) is Literal else f"it must be {description(hint)}"


def _references(value: object, selector: str) -> list[str]:
    """Names that `value` refers to by `%NAME`: macros for "gin.macro", constants for "gin.constant"."""
    references = gin.config.iterate_references({"": value})
    return ["/".join(reference.scopes) for reference in references if reference.selector == selector]
