"""Checks of dataclasses: that fields have a value of their Literal, and that nothing in them can change."""

import dataclasses
from collections.abc import Callable
from typing import Any, Literal, get_args, get_origin

from poly_jax.errors import UserError


def check_literal_fields(described: Any, subject: Callable[[str], str] | None = None) -> None:
    """Check that every field whose annotation is a `Literal` has one of its values.

    Args:
      described: an object of a dataclass.
      subject: beginning of the message for a field, up to its value; None for `CLASS.FIELD is`.

    Raises:
      UserError: a field has another value. The message names the possible ones.
    """
    for field in dataclasses.fields(described):
        if get_origin(field.type) is not Literal:
            continue
        value, choices = getattr(described, field.name), get_args(field.type)
        if value not in choices:
            begin = subject(field.name) if subject else f"{type(described).__name__}.{field.name} is"
            raise UserError(f"{begin} {value!r}; use one of {', '.join(choices)}")


def is_fixed(value: Any) -> bool:
    """Whether a value can never change: a number, text or None, or a tuple or frozen dataclass of such."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        parts = (getattr(value, field.name) for field in dataclasses.fields(value))
        frozen = getattr(value, "__dataclass_params__").frozen  # noqa: B009 - typeshed does not know it.
        return frozen and all(map(is_fixed, parts))
    if isinstance(value, tuple):
        return all(map(is_fixed, value))
    return value is None or isinstance(value, int | float | str)
