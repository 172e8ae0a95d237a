"""Whether a bound value is of the type that its parameter is annotated with."""

import collections.abc
import inspect
import sys
import types
import typing
from typing import Any, Literal, Union, get_args, get_origin

import gin

_SEQUENCES = (
    *(collections.abc.Sequence, collections.abc.Collection, collections.abc.Iterable),
    *(list, tuple, collections.abc.Set, set, frozenset),
)
_MAPPINGS = (dict, collections.abc.Mapping, collections.abc.MutableMapping)


# What NumPy and JAX hold.
_LARGEST_INTEGER = 2**63 - 1


class MisfitError(Exception):
    """A value that is not of the annotated type."""


def annotations(wrapped: Any) -> dict[str, Any]:
    """The annotated type of each parameter of a class or function; unknown types are left out."""
    # A dataclass's own annotations know the modules of its bases.
    for source in (wrapped, getattr(wrapped, "__init__", None)):
        try:
            hints = typing.get_type_hints(source)
        except Exception:  # Whatever the annotations of a user's module raise when they are evaluated.
            hints = {}
        if hints:
            return hints
    return {}


def fitting(value: Any, hint: Any) -> Any:
    """The value as a type takes it: a whole float becomes an integer, a single text a sequence of one.

    Integers have at most 64 bits, and numbers are finite.

    Args:
      value: a literal, with gin's references in it.
      hint: an annotation. What it says beyond the types of this function is not checked.

    Raises:
      MisfitError: it is not of this type.
    """
    origin, args = get_origin(hint), get_args(hint)
    if hint is Any or isinstance(hint, typing.TypeVar | str):
        return value
    if origin is typing.Annotated:
        return fitting(value, args[0])
    if origin in (Union, types.UnionType):
        return _first_fitting(value, args)
    if isinstance(value, gin.config.ConfigurableReference):
        return _reference(value, hint, origin)
    if origin is Literal:
        return _require(any(value == arg and type(value) is type(arg) for arg in args), value)
    if hint is None or hint is types.NoneType:
        return _require(value is None, value)
    if hint is int:
        whole = isinstance(value, float) and value.is_integer()
        number = int(value) if whole else _require(type(value) is int, value)
        return _require(abs(number) <= _LARGEST_INTEGER, number)
    if hint is float:
        return _require(type(value) in (int, float) and abs(value) <= sys.float_info.max, value)
    if hint in (bool, str):
        return _require(type(value) is hint, value)
    if (origin or hint) in _SEQUENCES:
        return _sequence(value, origin or hint, args)
    if (origin or hint) in _MAPPINGS:
        _require(isinstance(value, dict), value)
        keys, values = args or (Any, Any)
        return {fitting(key, keys): fitting(content, values) for key, content in value.items()}
    if (origin or hint) is collections.abc.Callable or origin is type:
        raise MisfitError
    if isinstance(hint, type) and not getattr(hint, "_is_protocol", False):
        return _require(isinstance(value, hint), value)
    if isinstance(hint, type):
        # No literal of gin has the methods of one of this project's protocols.
        raise MisfitError
    return value


def description(hint: Any) -> str:
    """A type in words, for people."""
    origin, args = get_origin(hint), get_args(hint)
    simple = {int: "a whole number", float: "a number", bool: "True or False", str: "a text in quotes"}
    if hint in simple:
        return simple[hint]
    if hint is None or hint is types.NoneType:
        return "None"
    if origin is Literal:
        return _listed([repr(arg) for arg in args])
    if origin in (Union, types.UnionType):
        return _listed([description(arg) for arg in args])
    if (origin or hint) in _MAPPINGS:
        return "a dictionary"
    if (origin or hint) in _SEQUENCES:
        kind = "list" if (origin or hint) is list else "tuple"
        inner = {int: "whole numbers", float: "numbers", str: "texts"}.get(args[0]) if args else None
        return f"a {kind} of {inner}" if inner else f"a {kind}"
    if (origin or hint) is collections.abc.Callable:
        return "a function, written @NAME without parentheses"
    if isinstance(hint, type):
        fit = [name for name, entry in _ours() if inspect.isclass(entry) and _is_a(entry, hint)]
        article = "an" if hint.__name__[0] in "AEIO" else "a"
        return f"{article} {hint.__name__}" + (f", such as @{fit[0]}()" if fit else "")
    return str(hint)


def _ours() -> list[tuple[str, Any]]:
    registry = gin.config._REGISTRY
    entries = [(registry.minimal_selector(name), entry.wrapped) for name, entry in registry.items()]
    return sorted((name, wrapped) for name, wrapped in entries if not name.startswith("gin."))


def _require(condition: bool, value: Any) -> Any:
    if not condition:
        raise MisfitError
    return value


def _first_fitting(value: Any, options: tuple[Any, ...]) -> Any:
    converted = []
    for option in options:
        try:
            found = fitting(value, option)
        except MisfitError:
            continue
        if found is value:
            return value
        converted.append(found)
    if not converted:
        raise MisfitError
    return converted[0]


def _sequence(value: Any, kind: Any, args: tuple[Any, ...]) -> Any:
    if isinstance(value, str):
        value = (value,)
    _require(isinstance(value, list | tuple), value)
    if kind is tuple and args and args[-1] is not Ellipsis:
        _require(len(value) == len(args), value)
        return tuple(fitting(part, hint) for part, hint in zip(value, args, strict=True))
    parts = [fitting(part, args[0] if args else Any) for part in value]
    made = tuple(parts) if kind is tuple else type(value)(parts)
    return value if made == value and type(made) is type(value) and all(map(_same, made, value)) else made


def _same(one: Any, other: Any) -> bool:
    return type(one) is type(other)


def _reference(value: Any, hint: Any, origin: Any) -> Any:
    """A reference: what it makes must be of the type, as far as that is known without making it."""
    if value.selector in ("gin.macro", "gin.constant", "gin.singleton"):
        return value
    wrapped, kind = value.configurable.wrapped, origin or hint
    if not value.evaluate:
        protocol = (
            isinstance(kind, type) and getattr(kind, "_is_protocol", False) and "__call__" in vars(kind)
        )
        return _require(kind in (collections.abc.Callable, type) or protocol, value)
    made = wrapped if inspect.isclass(wrapped) else annotations(wrapped).get("return", Any)
    if made is Any or get_origin(made) in (Union, types.UnionType):
        return value
    if made is None or made is types.NoneType:
        return _require(hint in (None, types.NoneType), value)
    made = get_origin(made) or made
    if not isinstance(made, type) or not isinstance(kind, type):
        return value
    return _require(_is_a(made, kind), value)


def _is_a(made: type, kind: type) -> bool:
    """Whether objects of a class are of a kind: a class, or a protocol whose members they have."""
    if not getattr(kind, "_is_protocol", False):
        return issubclass(made, kind)
    protocols = [
        base for base in kind.__mro__ if getattr(base, "_is_protocol", False) and base is not typing.Protocol
    ]
    members = {
        name
        for base in protocols
        for name in (*vars(base), *getattr(base, "__annotations__", {}))
        if not name.startswith("_") or name == "__call__"
    }
    return bool(members) and all(hasattr(made, name) or name in _fields(made) for name in members)


def _fields(made: type) -> set[str]:
    return {name for base in made.__mro__ for name in vars(base).get("__annotations__", {})}


def _listed(words: list[str]) -> str:
    return " or ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)
