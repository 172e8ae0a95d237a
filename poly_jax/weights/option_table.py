"""Tables of the options that another system's configuration file may hold, and how each is treated.

An option is used, known to change nothing, or refused by its name and value. There is one table per format.
The readers check a file against its table before they read anything else. docs/checkpoints.md shows the
tables.
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
    """Options of a file that are treated in the same way.

    Attributes:
      names: keys in the file.
      fate: treatment of the options. A "used" option has an effect, and its reader checks its value. A
        "neutral" option changes nothing that this project computes, whatever its value. A "refused" option
        is an error unless it has one of the values at which it changes nothing.
      note: purpose of the option, or the reason for its treatment, for the documentation.
      allowed: values at which a refused option changes nothing.
    """

    names: tuple[str, ...]
    fate: Fate
    note: str
    allowed: tuple[Any, ...] = ()


def used(names: str, note: str) -> Option:
    """Describe options, separated by spaces, that this project uses."""
    return Option(tuple(names.split()), "used", note)


def neutral(names: str, note: str) -> Option:
    """Describe options, separated by spaces, that change nothing that this project computes."""
    return Option(tuple(names.split()), "neutral", note)


def refused(names: str, *allowed: Any, note: str) -> Option:
    """Describe options, separated by spaces, that are refused unless their value is one of `allowed`."""
    return Option(tuple(names.split()), "refused", note, allowed)


@dataclasses.dataclass(frozen=True)
class OptionTable:
    """Every option of one format.

    Attributes:
      title: name of the format, for the documentation.
      options: the known options.
      harmless: values that switch off any option that is not in the table.
    """

    title: str
    options: tuple[Option, ...]
    harmless: tuple[Any, ...]

    def check(self, content: Mapping[str, Any], file: object) -> None:
        """Refuse the first option that would change the computation and that this project does not use.

        Args:
          content: the file's JSON object.
          file: path of the file, for the message.

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
        """Return the table as docs/checkpoints.md shows it: one line per treatment and reason."""
        lines = ["| option | treatment | purpose or reason |", "| --- | --- | --- |"]
        for option in self.options:
            names = ", ".join(f"`{name}`" for name in option.names)
            values = " or ".join(f"`{json.dumps(value)}`" for value in option.allowed)
            fate = f"refused unless {values}" if option.fate == "refused" else option.fate
            lines.append(f"| {names} | {fate} | {option.note} |")
        values = ", ".join(f"`{json.dumps(value)}`" for value in self.harmless)
        lines.append(f"| any other | refused unless {values} | its effect is not known |")
        return "\n".join(lines)


def number(content: Mapping[str, Any], name: str, default: float | None, file: object) -> float:
    """Return an option that must be a number, or `default` where it is absent.

    Raises:
      UserError: the value is not a number that float32 holds, or it is absent and there is no default.
    """
    value = content.get(name, default)
    kind_fits = isinstance(value, int | float) and not isinstance(value, bool)
    if not kind_fits or not abs(value) <= _LARGEST:
        raise UserError(f"{file}: {name} is {_short(value)}, not a number; take the file that was saved")
    return value


def _is_one_of(value: Any, allowed: tuple[Any, ...]) -> bool:
    """Whether a value is among `allowed`, where 0, false, empty texts and empty containers differ."""
    return any(value == one and isinstance(value, bool) == isinstance(one, bool) for one in allowed)


def _short(value: Any) -> str:
    text = re.sub(r"\s+", " ", repr(value))
    return text if len(text) <= 80 else f"{text[:77]}..."
