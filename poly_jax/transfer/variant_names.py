"""The variants' names, in a module of their own, so that `--help` imports no JAX."""

from typing import Literal, get_args

VariantName = Literal[
    "mhr",
    "mhr-z",
    "mhr-mu",
    "poly",
    "poly-z",
    "poly-mu",
    "shared",
    "soup",
    "soup-selected",
    "random",
    "private",
    "full",
    "zero-shot",
    "lorahub",
]

VARIANT_NAMES: tuple[VariantName, ...] = get_args(VariantName)
