"""Values in which nothing can change, by which results are kept and found again."""

import dataclasses
from collections.abc import Callable
from typing import Any, Protocol, TypeVar

Result = TypeVar("Result", covariant=True)


class _Keeping(Protocol[Result]):
    """A function under `functools.lru_cache`."""

    def __call__(self, *args: Any) -> Result: ...

    @property
    def __wrapped__(self) -> Callable[..., Result]: ...


def is_fixed(value: Any) -> bool:
    """Whether a value can never change: a number, text or None, or a tuple or frozen dataclass of such."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        parts = (getattr(value, field.name) for field in dataclasses.fields(value))
        frozen = getattr(value, "__dataclass_params__").frozen  # noqa: B009 - typeshed does not know it.
        return frozen and all(map(is_fixed, parts))
    if isinstance(value, tuple):
        return all(map(is_fixed, value))
    return value is None or isinstance(value, int | float | str)


def kept_for(function: _Keeping[Result], *parts: Any) -> Callable[..., Result]:
    """A function that keeps its results, or one that does not where a part of its arguments can change.

    Args:
      function: a function under `functools.lru_cache`.
      parts: the parts of its arguments that a user may have written.
    """
    return function if is_fixed(parts) else function.__wrapped__
