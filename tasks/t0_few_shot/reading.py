"""Reads a file of examples, and renders each with a task's templates."""

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from etils import epath

from poly_jax.data.broken_rows import RowCheck, checking
from poly_jax.errors import UserError
from poly_jax.files.json_fields import is_kind
from poly_jax.files.json_file import parse_json
from poly_jax.files.text_file import decode, read_bytes, refuse_utf16
from poly_jax.tasks.t0_few_shot.templates import Renderer, Template

_FETCH = "fetch the file again"
# A data set's whole evaluation set is one file.
_MAX_BYTES = 1 << 30


@dataclasses.dataclass(frozen=True)
class Shown:
    """An example rendered with one template.

    Attributes:
      input: the prompt.
      choices: the answers to choose from.
      label: index of the right choice.
      example: position of the example in its file.
      template: name of the template.
    """

    input: str
    choices: tuple[str, ...]
    label: int
    example: int
    template: str


def show_examples(
    path: epath.Path,
    templates: Sequence[Template],
    places: Callable[[int], Iterable[int]],
    check: RowCheck | None = None,
) -> list[Shown]:
    """Render the examples of a JSONL file, each with some of the templates.

    Args:
      path: the file: in each line an object with the right choice's index in `label`.
      templates: templates of the task.
      places: function from an example's position in the file to the indices of its templates.
      check: collects broken lines, which are left out; the caller finishes it. A line is broken if it is not
        UTF-8 or not such an object, a template does not fit it, or its label is none of a template's choices.

    Raises:
      UserError: there is no such file, or it has no example; or, without `check`, a line is broken (the
        message has its number, and the template).
    """
    renderer = Renderer()
    shown: list[Shown] = []
    with checking(check) as checked:
        for place, line in enumerate(_lines(path)):
            where = f"{path}, line {place + 1}"
            with checked.row(path, place + 1, where):
                example = _example(decode(line, where, _FETCH), where)
                shown += [
                    _show(renderer, path, place, example, templates[chosen]) for chosen in places(place)
                ]
    return shown


def _lines(path: epath.Path) -> list[bytes]:
    if not path.exists():
        raise UserError(f"no examples at {path}")
    content = read_bytes(path, _MAX_BYTES, _FETCH)
    refuse_utf16(content, path)
    # Not splitlines: JSON may hold other line separators inside its texts.
    lines = content.rstrip(b"\n").split(b"\n")
    if lines == [b""]:
        raise UserError(f"{path} has no example; {_FETCH}")
    return lines


def _example(line: str, where: str) -> dict[str, Any]:
    example = parse_json(line, where, object, allow_nan=True, advice=_FETCH)
    label = example.get("label") if isinstance(example, dict) else None
    if label is None or not is_kind(label, int) or label < 0:
        raise UserError(f"{where} is not an object with an integer 'label', 0 or more")
    return example


def _show(
    renderer: Renderer, path: epath.Path, place: int, example: Mapping[str, Any], template: Template
) -> Shown:
    where = f"{path}: line {place + 1} cannot be shown by template {template.name!r}"
    try:
        rendered = renderer.render(template, example, seed=f"{template.name} {place}")
    except ValueError as error:
        raise UserError(f"{where}: {error}") from error
    label = example["label"]
    if label >= len(rendered.choices):
        raise UserError(f"{where}: label {label} is none of the {len(rendered.choices)} choices")
    # Choices are ranked, so the target must be one of them. Some templates rephrase it.
    if rendered.target != rendered.choices[label]:
        raise UserError(
            f"{where}: target {rendered.target!r:.80} is not choice {label} of {rendered.choices}"
        )
    return Shown(rendered.input, rendered.choices, label, place, template.name)
