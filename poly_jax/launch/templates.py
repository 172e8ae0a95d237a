"""Shell scripts from jinja templates, in which every value is quoted for the shell."""

import shlex
from typing import Any

import jinja2

_ENVIRONMENT = jinja2.Environment(
    loader=jinja2.PackageLoader("poly_jax.launch", "scripts"),
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=True,
    autoescape=False,
    # What a template prints is quoted, so that none can forget to.
    finalize=lambda value: shlex.quote(str(value)),
)


def script(template: str, **values: Any) -> str:
    """Fill in a template of `poly_jax/launch/scripts`; a value appears there as one word of the shell."""
    return _ENVIRONMENT.get_template(template).render(**values)
