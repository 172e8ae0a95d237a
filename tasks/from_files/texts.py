"""Texts that are made of the fields of a row: a column, or a template with fields in braces."""

import re
import string
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from poly_jax.errors import UserError
from poly_jax.files.json_fields import shown
from poly_jax.suggestion import close_names, did_you_mean
from poly_jax.tasks.from_files.row_files import REPAIR, Fields

# A column, and maybe keys or places inside its value.
_FIELD = re.compile(r"([^\[\]]+)((?:\[[^\[\]]+\])*)")
_Field = tuple[str, list[str]]


class _AbsentError(UserError):
    """A row has no such field."""


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
        self._parts: list[tuple[str, _Field | None]] = [("", (text, []))]
        if "{" in text or "}" in text:
            self._parts = list(_parsed(text, f"from_files.register.{setting}"))

    def absent_field(self, rows: Iterable[Fields]) -> str | None:
        """Return the first field of the text that none of the rows has; None where there is no row, too."""
        absent = None
        for row in rows:
            fields = self._fields() if absent is None else absent
            absent = [field for field in fields if _is_absent(row, field)]
            if not absent:
                return None
        return _written(*absent[0]) if absent else None

    def _fields(self) -> list[_Field]:
        return [field for _, field in self._parts if field is not None]

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


def close_columns(column: str, columns: Collection[str]) -> str:
    """Return a phrase for an error message: the columns close to a name, or all of them."""
    return did_you_mean(close_names(column, columns)) or f"it has {', '.join(map(repr, columns)) or 'none'}"


def _found(row: Fields, column: str, keys: list[str], place: str) -> Any:
    if column not in row:
        raise _AbsentError(f"{place} has no field {column!r} ({close_columns(column, row)}); {REPAIR}")
    value = row[column]
    for number, key in enumerate(keys, 1):
        inside = value
        if isinstance(inside, Mapping) and key in inside:
            value = inside[key]
        elif isinstance(inside, list) and key.isdecimal() and int(key) < len(inside):
            value = inside[int(key)]
        else:
            raise _AbsentError(f"{place} has no field {_written(column, keys[:number])!r}; {REPAIR}")
    if value is None:
        raise UserError(f"{place}: {_written(column, keys)!r} is null; {REPAIR}")
    return value


def _is_absent(row: Fields, field: _Field) -> bool:
    """Whether a row lacks a field. A field that is null or cannot be read is there."""
    try:
        _found(row, *field, "")
    except _AbsentError:
        return True
    except UserError:
        return False
    return False


def _written(column: str, keys: Iterable[str]) -> str:
    return column + "".join(f"[{key}]" for key in keys)
