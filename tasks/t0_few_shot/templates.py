"""promptsource's templates, read from their YAML files and rendered with Jinja."""

import dataclasses
import random
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jinja2
import jinja2.filters
import jinja2.runtime
import jinja2.sandbox
import yaml
from etils import epath

from poly_jax.errors import UserError

# What divides input from target, and choices from one another.
_SEPARATOR = "|||"
# Stands for a separator inside a field while a template is rendered.
_PROTECTED = "\ue000"
# promptsource cuts every value that a template inserts.
_LONGEST_VALUE = 2048


@dataclasses.dataclass(frozen=True)
class Template:
    """One prompt.

    Attributes:
      name: unique in its file.
      text: Jinja of "input ||| target".
      answer_choices: Jinja of the choices, with the same separator; None where the template has none.
      original_task: whether it asks for what the data set was made for.
    """

    name: str
    text: str
    answer_choices: str | None
    original_task: bool


class Rendered(NamedTuple):
    """An example shown by a template; all texts are stripped."""

    input: str
    target: str
    choices: tuple[str, ...]


class _Loader(yaml.SafeLoader):
    """Reads promptsource's two tags as plain mappings."""


for _tag in ("!Template", "!TemplateMetadata"):
    _Loader.add_constructor(_tag, lambda loader, node: loader.construct_mapping(node, deep=True))


def read_templates(path: epath.Path) -> list[Template]:
    """The templates of a `templates.yaml`.

    Raises:
      UserError: the file is missing, no YAML (the message has the place) or not of promptsource's form.
    """
    try:
        content = yaml.load(path.read_text(), _Loader)
    except FileNotFoundError:
        raise UserError(
            f"no templates at {path}; copy promptsource's folder 'templates' there (promptsource_templates)"
        ) from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        place = f" at line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise UserError(f"{path}: broken YAML{place}: {error.problem}; fetch the file again") from None
    try:
        return [
            Template(
                name=str(fields["name"]),
                text=str(fields["jinja"]),
                answer_choices=fields["answer_choices"],
                original_task=bool(fields["metadata"]["original_task"]),
            )
            for fields in content["templates"].values()
        ]
    except (TypeError, KeyError, AttributeError) as error:
        raise UserError(
            f"{path} is no file of promptsource's templates ({type(error).__name__}: {error}); fetch it again"
        ) from None


class Renderer:
    """Renders templates as promptsource does, but that an unknown field is an error rather than nothing."""

    def __init__(self) -> None:
        # Templates are data that somebody downloaded: they may compute, not reach into the program.
        self._jinja = jinja2.sandbox.ImmutableSandboxedEnvironment(
            undefined=jinja2.StrictUndefined, finalize=self._cut
        )
        self._jinja.globals["zip"] = zip
        self._jinja.filters["choice"] = self._draw
        self._random = random.Random()
        self._compiled: dict[str, jinja2.Template] = {}

    def render(self, template: Template, example: Mapping[str, Any], seed: str) -> Rendered:
        """Shows an example.

        Args:
          template: the prompt, with answer choices.
          example: its fields.
          seed: of templates that draw; the same seed draws the same.

        Raises:
          ValueError: the template does not fit the example, or has no choices.
        """
        if template.answer_choices is None:
            raise ValueError("it has no answer choices")
        fields = {name: _protected(value) for name, value in example.items()}
        self._random.seed(seed)
        try:
            choices = self._parts(template.answer_choices, fields)
            parts = self._parts(template.text, {**fields, "answer_choices": choices})
        except (jinja2.TemplateError, TypeError, ValueError, LookupError, AttributeError) as error:
            raise ValueError(f"{type(error).__name__}: {error}") from error
        if len(parts) != 2 or not all(parts) or not all(choices):
            raise ValueError("its input, its target or one of its choices is empty")
        source, target = (part.replace(_PROTECTED, _SEPARATOR) for part in parts)
        return Rendered(source, target, tuple(part.replace(_PROTECTED, _SEPARATOR) for part in choices))

    def _parts(self, text: str, fields: Mapping[str, Any]) -> list[str]:
        if text not in self._compiled:
            self._compiled[text] = self._jinja.from_string(text)
        return [part.strip() for part in self._compiled[text].render(fields).split(_SEPARATOR)]

    def _cut(self, value: Any) -> str:
        return jinja2.filters.do_truncate(self._jinja, str(value), _LONGEST_VALUE)

    # With the context Jinja draws at every rendering; without, a draw from a constant list is made once.
    @jinja2.pass_context
    def _draw(self, context: jinja2.runtime.Context, values: Sequence[Any]) -> Any:
        del context
        return self._random.choice(values)


def _protected(value: Any) -> Any:
    if isinstance(value, str):
        return value.replace(_SEPARATOR, _PROTECTED)
    return [_protected(element) for element in value] if isinstance(value, list) else value
