"""Configurable objects as the gin bindings that make them again."""

import dataclasses
from collections.abc import Collection
from typing import Any


def bindings(value: Any, skip: Collection[str] = ()) -> list[str]:
    """Lines that bind every field of a configurable dataclass, and those of configurables in its fields.

    Args:
      value: an instance of a dataclass that gin knows by its class's name.
      skip: fields that are left to whoever makes the object.
    """
    owner = type(value).__name__
    lines = []
    for field in dataclasses.fields(value):
        if field.name in skip:
            continue
        content = getattr(value, field.name)
        if dataclasses.is_dataclass(content):
            lines.append(f"{owner}.{field.name} = @{type(content).__name__}()")
            lines += bindings(content)
        else:
            lines.append(f"{owner}.{field.name} = {content!r}")
    return lines
