"""The answers for unknown tasks, in a separate module that does not import JAX, for a fast `--help`."""

from typing import Literal, get_args

Unknown = Literal["average", "nearest", "regression"]

UNKNOWN: tuple[Unknown, ...] = get_args(Unknown)
