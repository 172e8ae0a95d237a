"""Checks of settings that count something, such as steps, tasks and tokens."""

import numbers
from typing import Any

from poly_jax.errors import UserError


def check_counts(owner: str | None, **counts: Any) -> None:
    """Check that counts are whole numbers of at least 1.

    Args:
      owner: the program or class that has the settings, for the message; None for arguments of a function.
      **counts: values by the name of the setting.

    Raises:
      UserError: a value is something else.
    """
    for setting, count in counts.items():
        name = f"{owner}.{setting}" if owner else setting
        if isinstance(count, bool) or not isinstance(count, numbers.Integral):
            raise UserError(f"{name} is {count!r}; it must be a whole number")
        if int(count) < 1:
            raise UserError(f"{name} is {count}; it must be at least 1")
