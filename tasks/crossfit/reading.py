"""Reads a TSV file of CrossFit: an input and one or more references in each line."""

import dataclasses
import functools
import re
from collections.abc import Collection

from etils import epath

from poly_jax.data.broken_rows import RowCheck, checking
from poly_jax.errors import UserError
from poly_jax.files.text_file import read_bytes, refuse_utf16

# The largest file, a test set of articles, has about a hundred megabytes.
_MAX_BYTES = 1 << 30
_REPAIR = "repair or remove the line"
_SHOWN = 60
_NAMED = 6
_OPTION = re.compile(r"\([A-Z]\) ")


@dataclasses.dataclass(frozen=True)
class Row:
    """One line of a file.

    Attributes:
      fields: the texts between the tabs as they stand in the file, so that they can be written back.
    """

    fields: tuple[str, ...]

    @functools.cached_property
    def _stripped(self) -> list[str]:
        # CrossFit strips the line, not its fields: blanks around an inner tab are kept.
        return "\t".join(self.fields).strip().split("\t")

    @property
    def input(self) -> str:
        """The input."""
        return self._stripped[0]

    @property
    def references(self) -> tuple[str, ...]:
        """The right answers; a row that `read_rows` returns has at least one."""
        return tuple(self._stripped[1:])


def read_rows(
    path: epath.Path,
    check_choices: bool = False,
    labels: Collection[str] | None = None,
    check: RowCheck | None = None,
) -> tuple[Row, ...]:
    r"""Read the rows of a file.

    Lines end at "\n" or "\r\n" only. A "\r" inside a text stays in it; CrossFit's own reader ends the line
    there.

    Args:
      path: the file, local or remote (gs://).
      check_choices: whether the first reference of a row must be one of the answer choices in its input,
        "... (A) one (B) two"; rows without choices pass.
      labels: the texts of which every reference of a row must be one; None for any texts.
      check: collects broken lines, which are left out; the caller finishes it. A line is broken if it is not
        UTF-8, has no tab, an empty text or an answer that is not one of its choices or labels.

    Raises:
      UserError: the file is missing, too large, empty or UTF-16; or, without `check`, a line is broken (the
        message has its number).
    """
    content = read_bytes(path, _MAX_BYTES, "fetch it again")
    refuse_utf16(content, path)
    lines = content.split(b"\n")
    if lines[-1] == b"":
        lines.pop()
    if not lines:
        raise UserError(f"{path} has no line; fetch it again")
    rows = []
    with checking(check) as checked:
        for number, line in enumerate(lines, 1):
            place = f"{path}, line {number}"
            with checked.row(path, number, place):
                rows.append(_row(line, place, check_choices, labels))
    return tuple(rows)


def _row(line: bytes, where: str, check_choices: bool, labels: Collection[str] | None) -> Row:
    try:
        text = line.decode()
    except UnicodeDecodeError as error:
        raise UserError(f"{where} is not UTF-8 ({error.reason} at byte {error.start}); {_REPAIR}") from None
    row = Row(tuple(text.split("\t")))
    if len(row.fields) < 2:
        raise UserError(
            f"{where} has no tab between input and target: {_shown(text)}; write input, tab, target"
        )
    if not row.fields[0].strip():
        raise UserError(f"{where} has an empty input: {_shown(text)}; {_REPAIR}")
    # Empty columns at the end of a line vanish when the line is stripped.
    if not row.references or not all(map(str.strip, row.references)):
        raise UserError(f"{where} has an empty target: {_shown(text)}; {_REPAIR}")
    if check_choices and not _is_choice(row):
        raise UserError(
            f"{where}: target {_shown(row.references[0])} is not one of the choices in its input "
            f"{_shown(row.input)}; {_REPAIR}, or bind crossfit.register.check_choices = False"
        )
    if labels is not None and (others := [each for each in row.references if each not in labels]):
        raise UserError(
            f"{where}: target {_shown(others[0])} is not one of the task's labels "
            f"{_some(labels)}; {_REPAIR}, or bind crossfit.register.check_choices = False"
        )
    return row


def _is_choice(row: Row) -> bool:
    """Whether the first reference follows a letter in parentheses; True where the input has no choices."""
    text, answer = " ".join(row.input.split()), " ".join(row.references[0].split())
    options = [text[match.end() :] for match in _OPTION.finditer(text)]
    if not options:
        return True
    # Some inputs go on after the last choice, so what follows an answer must only not continue its last word.
    whole = re.compile(re.escape(answer) + (r"(?!\w)" if answer[-1].isalnum() else ""))
    return any(whole.match(option) for option in options)


def _shown(text: str) -> str:
    return repr(text if len(text) <= _SHOWN else f"{text[:_SHOWN]}...")


def _some(labels: Collection[str]) -> str:
    shown = ", ".join(map(repr, sorted(labels)[:_NAMED]))
    return shown if len(labels) <= _NAMED else f"{shown}, ..."
