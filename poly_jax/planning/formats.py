"""The formats of `poly-jax plan`, in a separate module that does not import JAX, for a fast `--help`."""

from typing import Literal, get_args

Format = Literal["text", "json", "markdown"]

FORMATS: tuple[Format, ...] = get_args(Format)
