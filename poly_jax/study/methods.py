"""The methods that are compared: how each is trained on many tasks, and how it adapts to new ones."""

import dataclasses

from poly_jax.transfer.variants import VARIANTS, Variant


@dataclasses.dataclass(frozen=True)
class Method:
    """A way to share parameters among training tasks.

    Attributes:
      name: as tables show it.
      recipe: gin file of its training.
      bindings: on top of the recipe.
      variants: ways to adapt it to held-out tasks; none where it cannot.
    """

    name: str
    recipe: str
    bindings: tuple[str, ...] = ()
    variants: tuple[str, ...] = ()


_RECIPES = "recipes/skillbench"
MHR = Method("MHR", f"{_RECIPES}/mhr.gin", variants=("mhr", "mhr-z", "mhr-mu"))
POLY = Method("Poly", f"{_RECIPES}/poly.gin", variants=("poly", "poly-z", "poly-mu"))
SHARED = Method("shared LoRA", f"{_RECIPES}/shared.gin", variants=("shared",))
SHARED_WIDE = Method("shared LoRA, 8 x rank", f"{_RECIPES}/shared_wide.gin", variants=("shared",))
PRIVATE = Method("private LoRA", f"{_RECIPES}/private.gin")

METHODS = (MHR, POLY, SHARED, SHARED_WIDE, PRIVATE)

FRESH = "fresh"
"""A new LoRA for a new task, without anything learned before: a control, adapted with more steps."""


def variant_of(name: str) -> Variant:
    """The variant of a name; `fresh` is a private adapter."""
    return VARIANTS["private" if name == FRESH else name]
