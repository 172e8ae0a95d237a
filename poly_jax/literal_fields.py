"""Checks of a dataclass: that fields have a value of their Literal, and that fields can be hashed."""

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


def check_hashable_fields(described: Any) -> None:
    """Check that every field of a dataclass can be hashed, since compiled programs are found again by them.

    Raises:
      UserError: a field cannot, such as an object that can change, or one that has a list.
    """
    for field in dataclasses.fields(described):
        value = getattr(described, field.name)
        try:
            hash(value)
        except TypeError as error:
            raise UserError(
                f"{type(described).__name__}.{field.name} is a {type(value).__name__} that cannot be hashed"
                f" ({error}); make it a dataclass with frozen=True, of numbers, texts and tuples"
            ) from error
