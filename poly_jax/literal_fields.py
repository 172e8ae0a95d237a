"""Checks that the fields of dataclasses have a value of their Literal."""

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
