"""Makes an example of a row: its input, its references, and its answer choices."""

import dataclasses
import itertools
from collections.abc import Collection, Sequence
from typing import Any

from poly_jax.errors import UserError
from poly_jax.files.json_fields import shown
from poly_jax.tasks.from_files.row_files import REPAIR, Fields, RowFile
from poly_jax.tasks.from_files.texts import RowText, close_columns, plain_text

INPUT_COLUMNS = (
    *("inputs", "input", "question", "prompt", "instruction", "text", "source", "context", "passage"),
    *("sentence", "document", "article", "premise"),
)
"""Columns that hold (a part of) the input, where no setting names it."""

TARGET_COLUMNS = (
    *("targets", "target", "output", "outputs", "answer", "answers", "completion", "response", "label"),
    "summary",
)
"""Columns that hold the target, where no setting names it."""


@dataclasses.dataclass(frozen=True)
class Example:
    """The texts of one row.

    Attributes:
      input: the input.
      references: the right answers, at least one.
      choices: the answers to choose from; none where the task has no choices.
      label: index of the right choice.
    """

    input: str
    references: tuple[str, ...]
    choices: tuple[str, ...] = ()
    label: int = 0


@dataclasses.dataclass(frozen=True)
class Columns:
    """The parts of an example, as a user gave them; see `tasks.register`.

    Attributes:
      inputs: a column or a template; None for the only column of `INPUT_COLUMNS`.
      targets: a column or a template; None for the only column of `TARGET_COLUMNS`.
      choices: the answers to choose from, or the column that has them; None for no choices.
    """

    inputs: str | None = None
    targets: str | None = None
    choices: str | tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        # Mistakes in a template show when tasks are registered.
        for setting in ("inputs", "targets"):
            if (text := getattr(self, setting)) is not None:
                RowText(text, setting)
        if isinstance(self.choices, str):
            RowText(self.choices, "choices")
        elif self.choices is not None:
            different = {choice.strip() for choice in self.choices} - {""}
            if len(different) < max(2, len(self.choices)):
                raise UserError(
                    f"from_files.register.choices is {list(self.choices)}; give two or more different answers"
                )

    def check(self, file: RowFile) -> None:
        """Check that a file has the columns that the settings name.

        Raises:
          UserError: no row of the file has a column, or a value inside it, that a setting names.
        """
        named = [name for name in ("inputs", "targets", "choices") if isinstance(getattr(self, name), str)]
        first = list(itertools.islice(file.readable(), 1)) if named else []
        for setting in named:
            text = RowText(getattr(self, setting), setting)
            # Rows of JSON may lack a field that others have, so all are read before the setting is refused.
            if text.absent_field(first) is None or (field := text.absent_field(file.readable())) is None:
                continue
            column, advice = field.partition("[")[0], "correct the name"
            if setting == "choices":
                advice += ", or give the choices themselves as a tuple, such as ('no', 'yes')"
            known = "" if column in first[0] else f" ({close_columns(column, list(first[0]))})"
            raise UserError(
                f"from_files.register.{setting} names {field!r}, which no row of {file.path} has{known};"
                f" {advice}"
            )

    def maker(self, columns: Collection[str], file: object) -> "ExampleMaker":
        """Return the function that makes examples of rows with these columns.

        Raises:
          UserError: a column must be found by its name, and none or several fit; the message has all columns.
        """
        return ExampleMaker(
            RowText(self.inputs or _only(columns, "inputs", INPUT_COLUMNS, file), "inputs"),
            RowText(self.targets or _only(columns, "targets", TARGET_COLUMNS, file), "targets"),
            RowText(self.choices, "choices") if isinstance(self.choices, str) else self.choices,
        )


@dataclasses.dataclass(frozen=True)
class ExampleMaker:
    """Makes examples of rows.

    Attributes:
      inputs: text of the input.
      targets: text or list of texts of the target.
      choices: the answers to choose from, the list of a row that has them, or None.
    """

    inputs: RowText
    targets: RowText
    choices: RowText | tuple[str, ...] | None

    def __call__(self, row: Fields, place: str) -> Example:
        """Make the example of a row.

        Raises:
          UserError: a field is missing or of another kind, a text is empty, or the target is not one of the
            choices; the message begins with `place`.
        """
        text = self.inputs.text(row, place)
        if not text.strip():
            raise UserError(f"{place} has an empty input; {REPAIR}")
        target = self.targets.value(row, place)
        if self.choices is None:
            return Example(text, _texts(target, "the target", place))
        choices = self.choices
        if isinstance(choices, RowText):
            choices = _texts(choices.value(row, place), "the choices", place, several=True)
            if twice := _repeated(choices):
                raise UserError(f"{place}: the choices have {shown(twice)} twice; {REPAIR}")
        label = _label(target, choices, place)
        return Example(text, (choices[label],), choices, label)


def _only(columns: Collection[str], setting: str, known: Sequence[str], file: object) -> str:
    # Where no row is whole, all of them are refused, whatever the column.
    found = [column for column in known if column in columns] if columns else [known[0]]
    if len(found) == 1:
        return found[0]
    listed = ", ".join(map(repr, columns)) or "none"
    example = "{question}\\nAnswer:" if setting == "inputs" else "{answer}"
    fits = " and ".join(map(repr, found)) + " could be" if found else "none of them is known as"
    raise UserError(
        f"{file} has the columns {listed}, and {fits} the {setting}; bind from_files.register.{setting} to a "
        f"column or a template, such as '{example}'"
    )


def _texts(value: Any, name: str, place: str, several: bool = False) -> tuple[str, ...]:
    values = value if isinstance(value, list) else [value]
    if several and not isinstance(value, list):
        raise UserError(
            f"{place}: {name} must be a list of at least two texts, got {shown(value)}; bind"
            " from_files.register.choices to a column of such lists, or to a tuple of the choices"
        )
    if several and len(values) < 2:
        raise UserError(f"{place}: {name} must be a list of at least two texts, got {shown(value)}; {REPAIR}")
    texts = []
    for each in values:
        if isinstance(each, dict | list) or not isinstance(each, str | int | float):
            raise UserError(
                f"{place}: {name} must be a text or a list of texts, got {shown(value)}; for a value inside "
                "it, bind from_files.register.targets or .choices to '{column[key]}'"
            )
        texts.append(str(each))
    if not texts or not all(map(str.strip, texts)):
        raise UserError(f"{place}: {name} is empty; {REPAIR}")
    return tuple(texts)


def _repeated(choices: Sequence[str]) -> str | None:
    """Return a choice that equals an earlier one up to blanks at its ends; None where all differ."""
    seen: set[str] = set()
    for choice in map(str.strip, choices):
        if choice in seen:
            return choice
        seen.add(choice)
    return None


def _label(target: Any, choices: Sequence[str], place: str) -> int:
    """Return the index of the right choice: a choice's text, or its number from 0."""
    if isinstance(target, list) and len(target) == 1:
        (target,) = target
    written = plain_text(target, "the target", place)
    if not written.strip():
        raise UserError(f"{place}: the target is empty; {REPAIR}")
    if isinstance(target, bool):
        # JSON writes true where Python writes True. It is a number only where no choice has this text.
        found = [index for index, choice in enumerate(choices) if choice.lower() == written.lower()]
        if len(found) == 1:
            return found[0]
    if written in choices:
        return list(choices).index(written)
    is_number = isinstance(target, int) or (isinstance(target, str) and target.isdecimal())
    if not is_number or not 0 <= int(target) < len(choices):
        raise UserError(
            f"{place}: target {shown(written)} is not one of the {len(choices)} choices "
            f"{shown(', '.join(choices))}, nor a number from 0 to {len(choices) - 1}; {REPAIR}"
        )
    return int(target)
