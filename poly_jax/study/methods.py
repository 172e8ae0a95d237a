"""The compared methods: how each is trained on many tasks, and how it adapts to new tasks."""

import dataclasses

from poly_jax.transfer.variants import Variant, find


@dataclasses.dataclass(frozen=True)
class Adaptation:
    """A way to adapt to new tasks, as it is compared.

    Attributes:
      name: name in tables.
      variant_name: name of the variant of adapting.
      steps: number of steps.
      n_examples: number of examples of a new task.
      sampling: whether the router draws its weights while it is trained.
      tuned_as: name of the adaptation whose learning rate it takes; None where it has its own.
    """

    name: str
    variant_name: str
    steps: int = 200
    n_examples: int = 16
    sampling: bool = True
    tuned_as: str | None = None

    @property
    def variant(self) -> Variant:
        """The variant of adapting."""
        return find(self.variant_name)


def adaptation(name: str) -> Adaptation:
    """The adaptation that has the name of its variant; one with fresh skills takes twice the steps."""
    return Adaptation(name, name, steps=400 if find(name).skills == "fresh" else 200)


FRESH = Adaptation("fresh", "private", steps=400)
"""A control: a new LoRA for each new task, which uses nothing learned before and is trained longer."""


@dataclasses.dataclass(frozen=True)
class MultitaskMethod:
    """A way to share parameters among training tasks.

    Attributes:
      name: name in tables.
      recipe: gin file of its training.
      adaptations: ways to adapt it to held-out tasks.
      rate_scale: factor of the learning rates that are tried for its skills.
      bindings: gin bindings on top of the recipe.
      rates: learning rates of skills that are tried in training on many tasks, before they are scaled.
    """

    name: str
    recipe: str
    adaptations: tuple[Adaptation, ...] = ()
    rate_scale: float = 1.0
    bindings: tuple[str, ...] = ()
    rates: tuple[float, ...] = (3e-3, 1e-2, 3e-2)

    @property
    def run_name(self) -> str:
        """Name of the folders of its runs: its recipe's name, or its own where it has bindings."""
        if self.bindings:
            return self.name.replace(", ", "-").replace(" ", "_")
        return self.recipe.rpartition("/")[2].removesuffix(".gin")


RECIPES = "recipes/skillbench"
"""Folder of the recipes."""


def _method(name: str, recipe: str, *variants: str, rate_scale: float = 1.0) -> MultitaskMethod:
    return MultitaskMethod(name, f"{RECIPES}/{recipe}.gin", tuple(map(adaptation, variants)), rate_scale)


MHR = _method("MHR", "mhr", "mhr", "mhr-z", "mhr-mu", "zero-shot", "random")
POLY = _method("Poly", "poly", "poly", "poly-z", "poly-mu")
SHARED = MultitaskMethod("shared LoRA", f"{RECIPES}/shared.gin", (adaptation("shared"), FRESH))
SHARED_WIDE = _method("shared LoRA, 8 x rank", "shared_wide", "shared")
PRIVATE = _method("private LoRA", "private", "soup", "soup-selected", "lorahub")
C_POLY = _method("C-Poly", "cpoly", "poly")
TRUE_SKILLS = _method("true skills", "true_skills", "poly")
AVERAGE = _method("average", "average", "poly-mu")
RANDOM = _method("random", "random", "poly-mu")
MERGE_AFTER = _method("MHR, merged after", "mhr_merge_after", "mhr")
TOP_2 = _method("Poly, top 2", "poly_top_2", "poly")
STRAIGHT_THROUGH = _method("Poly, straight-through", "poly_straight_through", "poly")
# (IA)^3's vectors start at 1 and have to change more than LoRA's factors: its lowest rate is LoRA's best.
IA3 = _method("MHR of (IA)^3", "mhr_ia3", "mhr", rate_scale=10.0)

LEARNED_ROUTERS = (MHR, POLY, C_POLY, MERGE_AFTER, TOP_2, STRAIGHT_THROUGH, IA3)
METHODS = (*LEARNED_ROUTERS, TRUE_SKILLS, AVERAGE, RANDOM, SHARED, SHARED_WIDE, PRIVATE)
