"""Tables of the options that another system's configuration file may hold, and what becomes of each.

An option is used, known to change nothing, or refused by its name and value. There is one table per format.
The readers check a file against it before they read anything else, and docs/checkpoints.md shows it.
"""

import dataclasses
import json
import re
from collections.abc import Mapping
from typing import Any, Literal

from poly_jax.errors import UserError

Fate = Literal["used", "neutral", "refused"]

# Beyond it a number is infinite in float32, in which it is multiplied into weights.
_LARGEST = 3e38


@dataclasses.dataclass(frozen=True)
class Option:
    """Options of a file that have the same fate.

    Attributes:
      names: keys in the file.
      fate: "used" options decide something here, and their reader checks their values; "neutral" ones change
        nothing that is computed here, whatever they hold; any other option is "refused" unless it has one of
        the values at which it changes nothing.
      note: for the documentation: what it is used for, or why it changes nothing or is refused.
      allowed: values at which a refused option changes nothing.
    """

    names: tuple[str, ...]
    fate: Fate
    note: str
    allowed: tuple[Any, ...] = ()


def used(names: str, note: str) -> Option:
    """Options, separated by spaces, that decide something here."""
    return Option(tuple(names.split()), "used", note)


def neutral(names: str, note: str) -> Option:
    """Options, separated by spaces, that change nothing that is computed here."""
    return Option(tuple(names.split()), "neutral", note)


def refused(names: str, *allowed: Any, note: str) -> Option:
    """Options, separated by spaces, that are refused unless they have one of the values `allowed`."""
    return Option(tuple(names.split()), "refused", note, allowed)


@dataclasses.dataclass(frozen=True)
class OptionTable:
    """Every option of one format.

    Attributes:
      title: name of the format, for the documentation.
      options: the known ones.
      harmless: values with which an option that is not in the table is taken to be switched off.
    """

    title: str
    options: tuple[Option, ...]
    harmless: tuple[Any, ...]

    def check(self, content: Mapping[str, Any], file: object) -> None:
        """Refuse the first option that changes what is computed and is not used here.

        Args:
          content: the file's JSON object.
          file: its path, for the message.

        Raises:
          UserError: such an option is set; the message has its name and value.
        """
        known = {name: option for option in self.options for name in option.names}
        for name, value in content.items():
            option = known.get(name)
            if option is None and not _is_one_of(value, self.harmless):
                raise UserError(
                    f"{file}: {_short(name)} is {_short(value)}, an option that is not known here; if it does"
                    " not change what the model computes, delete it from the file"
                )
            if option and option.fate == "refused" and not _is_one_of(value, option.allowed):
                allowed = " or ".join(repr(value) for value in option.allowed)
                raise UserError(
                    f"{file}: {name} is {_short(value)}, which is not supported; only {allowed} is"
                )

    def markdown(self) -> str:
        """The table as docs/checkpoints.md shows it: a line per fate and reason."""
        lines = ["| option | is | how |", "| --- | --- | --- |"]
        for option in self.options:
            names = ", ".join(f"`{name}`" for name in option.names)
            values = " or ".join(f"`{json.dumps(value)}`" for value in option.allowed)
            fate = f"refused unless {values}" if option.fate == "refused" else option.fate
            lines.append(f"| {names} | {fate} | {option.note} |")
        values = ", ".join(f"`{json.dumps(value)}`" for value in self.harmless)
        lines.append(f"| any other | refused unless {values} | it is not known what it changes |")
        return "\n".join(lines)


def number(content: Mapping[str, Any], name: str, default: float | None, file: object) -> float:
    """A number among the options; `default` where there is none.

    Raises:
      UserError: it is something else, larger than float32 holds, or missing and without a default.
    """
    value = content.get(name, default)
    kind_fits = isinstance(value, int | float) and not isinstance(value, bool)
    if not kind_fits or not abs(value) <= _LARGEST:
        raise UserError(f"{file}: {name} is {_short(value)}, not a number; take the file that was saved")
    return value


def _is_one_of(value: Any, allowed: tuple[Any, ...]) -> bool:
    """Equality that keeps 0, false and the empty texts and containers apart."""
    return any(value == one and isinstance(value, bool) == isinstance(one, bool) for one in allowed)


def _short(value: Any) -> str:
    text = re.sub(r"\s+", " ", repr(value))
    return text if len(text) <= 80 else f"{text[:77]}..."
