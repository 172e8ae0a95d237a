"""Configurable objects as the gin bindings that make them again."""

import dataclasses
from collections.abc import Collection
from typing import Any


def bindings(value: Any, skip: Collection[str] = (), scope: str = "") -> list[str]:
    """Lines that bind every field of a configurable dataclass, and those of configurables in its fields.

    Where two fields hold the same class, the second is made in a scope of the field's name.

    Args:
      value: an instance of a dataclass that gin knows by its class's name.
      skip: fields that are left to whoever makes the object.
      scope: gin's scope in which it is made, with a slash at the end, or nothing.
    """
    owner = f"{scope}{type(value).__name__}"
    lines = []
    used = set()
    for field in dataclasses.fields(value):
        if field.name in skip:
            continue
        content = getattr(value, field.name)
        if dataclasses.is_dataclass(content):
            kind = type(content).__name__
            inner = f"{field.name}/" if kind in used else scope
            used.add(kind)
            lines.append(f"{owner}.{field.name} = @{inner}{kind}()")
            lines += bindings(content, scope=inner)
        else:
            lines.append(f"{owner}.{field.name} = {content!r}")
    return lines
