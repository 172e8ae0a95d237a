"""Templates of HTML pages that need no other file."""

import importlib.resources
from collections.abc import Callable, Mapping
from typing import Any

import jinja2

from poly_jax.counted import counted


def html_template(
    package: str, name: str, filters: Mapping[str, Callable[..., Any]] | None = None
) -> jinja2.Template:
    """Read a template, which escapes what is put into it and refuses names that it is not given.

    Args:
      package: the package that the template's file is in.
      name: the file's name.
      filters: functions that the template calls beside `counted`, by name.
    """
    text = importlib.resources.files(package).joinpath(name).read_text(encoding="utf-8")
    environment = jinja2.Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    environment.filters |= {"counted": counted, **(filters or {})}
    return environment.from_string(text)
