"""Texts that are made of the fields of a row: a column, or a template with fields in braces."""

import re
import string
from collections.abc import Mapping
from typing import Any

from poly_jax.errors import UserError
from poly_jax.files.json_fields import shown
from poly_jax.suggestion import close_names, did_you_mean
from poly_jax.tasks.from_files.row_files import REPAIR, Fields

# A column, and maybe keys or places inside its value.
_FIELD = re.compile(r"([^\[\]]+)((?:\[[^\[\]]+\])*)")


class RowText:
    """A text of a row: one column, given by its name, or a template such as "Question: {question}\\nAnswer:".

    In a template, `{column}` stands for a value, `{column[key]}` and `{column[0]}` for a value inside it, and
    `{{` and `}}` for braces.

    Args:
      text: the name or the template.
      setting: name of the setting that has the text, for messages.

    Raises:
      UserError: the text is not a template.
    """

    def __init__(self, text: str, setting: str) -> None:
        if not text:
            raise UserError(f"from_files.register.{setting} is empty; give a column or a template")
        self._parts: list[tuple[str, tuple[str, list[str]] | None]] = [("", (text, []))]
        if "{" in text or "}" in text:
            self._parts = list(_parsed(text, f"from_files.register.{setting}"))

    def value(self, row: Fields, place: str) -> Any:
        """Return the value in the row where the text is one field only, or else the text itself.

        Args:
          row: the fields.
          place: name of the row in errors.

        Raises:
          UserError: the row has no such field, or the field is null.
        """
        if len(self._parts) == 1 and self._parts[0][1] and not self._parts[0][0]:
            return _found(row, *self._parts[0][1], place)
        return self.text(row, place)

    def text(self, row: Fields, place: str) -> str:
        """Return the text for a row.

        Raises:
          UserError: the row has no such field, or the field is neither a text nor a number.
        """
        return "".join(
            literal + ("" if field is None else plain_text(_found(row, *field, place), field[0], place))
            for literal, field in self._parts
        )


def plain_text(value: Any, name: str, place: str) -> str:
    """Return a text as it is, and a number as it is written; labels of Hugging Face as their names.

    Raises:
      UserError: the value is something else; the message has the name of its field and of its row.
    """
    if not isinstance(value, str | int | float):
        kind = shown(value) if isinstance(value, dict | list) else type(value).__name__
        raise UserError(
            f"{place}: {name!r} is {kind} where a text is needed; take a value inside it, as in "
            f"'{{{name}[0]}}' or '{{{name}[text]}}'"
        )
    return str(value)


def _parsed(text: str, setting: str) -> Any:
    try:
        parts = list(string.Formatter().parse(text))
    except ValueError as error:
        raise UserError(f"{setting} {text!r} is not a template ({error}); write {{{{ for a brace") from None
    for literal, field, form, conversion in parts:
        if field is None:
            yield literal, None
            continue
        match = _FIELD.fullmatch(field)
        if match is None or form or conversion:
            raise UserError(
                f"{setting} {text!r} has the field {{{field}}}; write {{column}}, {{column[key]}} or "
                "{column[0]}, without a format"
            )
        yield literal, (match[1], re.findall(r"\[([^\[\]]+)\]", match[2]))


def _found(row: Fields, column: str, keys: list[str], place: str) -> Any:
    if column not in row:
        known = did_you_mean(close_names(column, row)) or f"it has {', '.join(map(repr, row)) or 'none'}"
        raise UserError(f"{place} has no field {column!r} ({known}); {REPAIR}")
    value, path = row[column], column
    for key in keys:
        inside = value
        path = f"{path}[{key}]"
        if isinstance(inside, Mapping) and key in inside:
            value = inside[key]
        elif isinstance(inside, list) and key.isdecimal() and int(key) < len(inside):
            value = inside[int(key)]
        else:
            raise UserError(f"{place} has no field {path!r}; {REPAIR}")
    if value is None:
        raise UserError(f"{place}: {path!r} is null; {REPAIR}")
    return value
