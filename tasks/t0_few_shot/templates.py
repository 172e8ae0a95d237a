"""promptsource's templates, read from their YAML files and rendered with Jinja."""

import dataclasses
import random
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jinja2
import jinja2.filters
import yaml
from etils import epath

from poly_jax.errors import UserError
from poly_jax.files.json_fields import shown
from poly_jax.files.text_file import read_text
from poly_jax.tasks.t0_few_shot.bounded_jinja import BoundedEnvironment, TooLargeError

# Separates the input from the target, and the choices from one another.
_SEPARATOR = "|||"
# Stands for a separator inside a field while a template is rendered.
_PROTECTED = "\ue000"
# promptsource cuts every value that a template inserts.
_LONGEST_VALUE = 2048
_FETCH = "fetch the file again"


@dataclasses.dataclass(frozen=True)
class Template:
    """One prompt.

    Attributes:
      name: name of the template, unique in its file.
      text: Jinja source of "input ||| target".
      answer_choices: Jinja source of the choices, with the same separator; None if the template has none.
      original_task: whether the template is for the task that the data set was made for.
    """

    name: str
    text: str
    answer_choices: str | None
    original_task: bool


class Rendered(NamedTuple):
    """An example rendered with a template; all texts are stripped."""

    input: str
    target: str
    choices: tuple[str, ...]


class _Loader(yaml.SafeLoader):
    """Reads promptsource's two tags as plain mappings, and refuses merges, which can expand to any size."""

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        for key, _ in node.value:
            if key.tag == "tag:yaml.org,2002:merge":
                raise yaml.constructor.ConstructorError(
                    None, None, "a merge (<<), which promptsource's files do not have", key.start_mark
                )
        super().flatten_mapping(node)


for _tag in ("!Template", "!TemplateMetadata"):
    _Loader.add_constructor(_tag, lambda loader, node: loader.construct_mapping(node, deep=True))


def read_templates(path: epath.Path) -> list[Template]:
    """Read the templates of a `templates.yaml`.

    Raises:
      UserError: the file is missing, is not YAML (the message says where) or not in promptsource's format.
    """
    if not path.exists():
        raise UserError(
            f"no templates at {path}; copy promptsource's folder 'templates' there (promptsource_templates)"
        )
    text = read_text(path, advice=_FETCH)
    try:
        content = yaml.load(text, _Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        place = f" at line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise UserError(f"{path}: broken YAML{place}: {error.problem}; {_FETCH}") from None
    except (yaml.YAMLError, ValueError) as error:
        raise UserError(f"{path}: broken YAML: {' '.join(str(error).split())}; {_FETCH}") from None
    except RecursionError:
        raise UserError(f"{path}: the YAML nests too deep; {_FETCH}") from None
    templates = content.get("templates") if isinstance(content, dict) else None
    if not isinstance(templates, dict):
        raise UserError(f"{path} has no field 'templates' as promptsource's files have; {_FETCH}")
    return [_template(fields, f"{path}: template {shown(key)}") for key, fields in templates.items()]


def _template(fields: Any, place: str) -> Template:
    kinds: dict[str, Any] = {
        "name": str,
        "jinja": str,
        "answer_choices": str | None,
        "metadata": dict,
    }
    if not isinstance(fields, dict):
        raise UserError(f"{place} is not a mapping; {_FETCH}")
    for name, kind in kinds.items():
        if name not in fields:
            raise UserError(f"{place} has no field {name!r}; {_FETCH}")
        if not isinstance(fields[name], kind):
            raise UserError(f"{place}: field {name!r} is {shown(fields[name])}; {_FETCH}")
    original = fields["metadata"].get("original_task")
    if not isinstance(original, bool | None):
        raise UserError(f"{place}: field 'original_task' is {shown(original)}, not true or false; {_FETCH}")
    return Template(fields["name"], fields["jinja"], fields["answer_choices"], bool(original))


class Renderer:
    """Renders templates as promptsource does, except that an unknown field is an error, not an empty text."""

    def __init__(self) -> None:
        # Templates are downloaded data, which cannot be trusted.
        self._jinja = BoundedEnvironment(
            {"choice": self._draw}, undefined=jinja2.StrictUndefined, finalize=self._cut
        )
        self._random = random.Random()
        self._compiled: dict[str, jinja2.Template] = {}

    def render(self, template: Template, example: Mapping[str, Any], seed: str) -> Rendered:
        """Render an example.

        Args:
          template: the prompt, with answer choices.
          example: its fields.
          seed: seed of the random choices that a template may make.

        Raises:
          ValueError: the template does not fit the example, has no choices, or takes too much time or memory.
        """
        if template.answer_choices is None:
            raise ValueError("it has no answer choices")
        parts, choices = self._rendered(template, example, seed)
        if len(parts) != 2 or not all(parts) or not all(choices):
            raise ValueError("its input, its target or one of its choices is empty")
        source, target = parts
        return Rendered(source, target, choices)

    def render_pair(
        self, template: Template, example: Mapping[str, Any], seed: str
    ) -> tuple[str, str] | None:
        """Render the input and the target of an example, with or without answer choices.

        Args:
          template: the prompt.
          example: its fields.
          seed: seed of the random choices that a template may make.

        Returns:
          The two texts, or None where the template leaves out the example: one of the texts is empty, or the
          template writes only one. Templates use this to select examples, and P3 has no row for the others.

        Raises:
          ValueError: the template does not fit the example, or takes too much time or memory.
        """
        parts, _ = self._rendered(template, example, seed)
        if len(parts) != 2 or not all(parts):
            return None
        source, target = parts
        return source, target

    def _rendered(
        self, template: Template, example: Mapping[str, Any], seed: str
    ) -> tuple[list[str], tuple[str, ...]]:
        """Return the parts of the rendered text, and the answer choices, of which there may be none."""
        fields = {name: _protected(value) for name, value in example.items()}
        self._random.seed(seed)
        choices: list[str] = []
        try:
            if template.answer_choices is not None:
                choices = self._parts(template.answer_choices, fields)
                fields["answer_choices"] = choices
            parts = self._parts(template.text, fields)
        except TooLargeError:
            raise
        except (
            jinja2.TemplateError,
            TypeError,
            ValueError,
            LookupError,
            AttributeError,
            ArithmeticError,
        ) as error:
            raise ValueError(f"{type(error).__name__}: {' '.join(str(error).split())}") from error
        return [_unprotected(part) for part in parts], tuple(_unprotected(choice) for choice in choices)

    def _parts(self, text: str, fields: Mapping[str, Any]) -> list[str]:
        if text not in self._compiled:
            self._compiled[text] = self._jinja.bounded_template(text)
        rendered = self._jinja.render_bounded(self._compiled[text], fields)
        return [part.strip() for part in rendered.split(_SEPARATOR)]

    def _cut(self, value: Any) -> str:
        return jinja2.filters.do_truncate(self._jinja, str(value), _LONGEST_VALUE)

    def _draw(self, values: Sequence[Any]) -> Any:
        return self._random.choice(values)


def _protected(value: Any) -> Any:
    if isinstance(value, str):
        return value.replace(_SEPARATOR, _PROTECTED)
    if isinstance(value, dict):
        return {name: _protected(element) for name, element in value.items()}
    return [_protected(element) for element in value] if isinstance(value, list) else value


def _unprotected(text: str) -> str:
    return text.replace(_PROTECTED, _SEPARATOR)
