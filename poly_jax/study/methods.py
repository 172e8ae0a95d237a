"""The compared methods: how each is trained on many tasks, and its variants for adapting to new tasks."""

import dataclasses

from poly_jax.transfer.variants import Variant, find


@dataclasses.dataclass(frozen=True)
class MultitaskMethod:
    """A way to share parameters among training tasks.

    Attributes:
      name: name in tables.
      recipe: gin file of its training.
      variants: names of the variants that adapt it to held-out tasks.
      rate_scale: factor of the learning rates that are tried for its skills.
    """

    name: str
    recipe: str
    variants: tuple[str, ...] = ()
    rate_scale: float = 1.0

    @property
    def run_name(self) -> str:
        """Name of the folders of its runs, which is that of its recipe."""
        return self.recipe.rpartition("/")[2].removesuffix(".gin")


_RECIPES = "recipes/skillbench"

FRESH = "fresh"
"""A control: a new LoRA for each new task, which uses nothing learned before and is trained longer."""

MHR = MultitaskMethod("MHR", f"{_RECIPES}/mhr.gin", ("mhr", "mhr-z", "mhr-mu", "zero-shot", "random"))
POLY = MultitaskMethod("Poly", f"{_RECIPES}/poly.gin", ("poly", "poly-z", "poly-mu"))
SHARED = MultitaskMethod("shared LoRA", f"{_RECIPES}/shared.gin", ("shared", FRESH))
SHARED_WIDE = MultitaskMethod("shared LoRA, 8 x rank", f"{_RECIPES}/shared_wide.gin", ("shared",))
PRIVATE = MultitaskMethod("private LoRA", f"{_RECIPES}/private.gin", ("soup", "soup-selected", "lorahub"))
C_POLY = MultitaskMethod("C-Poly", f"{_RECIPES}/cpoly.gin", ("poly",))
TRUE_SKILLS = MultitaskMethod("true skills", f"{_RECIPES}/true_skills.gin", ("poly",))
AVERAGE = MultitaskMethod("average", f"{_RECIPES}/average.gin", ("poly-mu",))
RANDOM = MultitaskMethod("random", f"{_RECIPES}/random.gin", ("poly-mu",))
MERGE_AFTER = MultitaskMethod("MHR, merged after", f"{_RECIPES}/mhr_merge_after.gin", ("mhr",))
TOP_2 = MultitaskMethod("Poly, top 2", f"{_RECIPES}/poly_top_2.gin", ("poly",))
STRAIGHT_THROUGH = MultitaskMethod(
    "Poly, straight-through", f"{_RECIPES}/poly_straight_through.gin", ("poly",)
)
# (IA)^3's vectors start at 1 and have to change more than LoRA's factors: its lowest rate is LoRA's best.
IA3 = MultitaskMethod("MHR of (IA)^3", f"{_RECIPES}/mhr_ia3.gin", ("mhr",), rate_scale=10.0)

LEARNED_ROUTERS = (MHR, POLY, C_POLY, MERGE_AFTER, TOP_2, STRAIGHT_THROUGH, IA3)
METHODS = (*LEARNED_ROUTERS, TRUE_SKILLS, AVERAGE, RANDOM, SHARED, SHARED_WIDE, PRIVATE)


def variant_of(name: str) -> Variant:
    """The variant with a name; `fresh` stands for a private adapter."""
    return find("private" if name == FRESH else name)
