"""The methods of the study of new tasks without examples, and their ways to answer."""

import dataclasses

from poly_jax.evaluation.unknown_answers import UNKNOWN
from poly_jax.study.methods import C_POLY, MHR, POLY, PRIVATE, RECIPES, SHARED_WIDE, MultitaskMethod
from poly_jax.tasks.skillbench.descriptions import Wording

PUBLISHED_SEEDS = (0, 1, 2, 3, 4)
FORMS: tuple[Wording, ...] = ("described", "reworded")
"""The prompts of the held-out tasks; every method is trained with the first form."""

AS_IT_IS = "as it is"
UNIFORM = "uniform mix"
REFERENCE = (POLY.name, UNIFORM)
"""The method and its answer with which all others are compared."""


@dataclasses.dataclass(frozen=True)
class Entry:
    """A method, and how it answers for new tasks without examples.

    Attributes:
      method: way to train it.
      answers: ways to answer: `AS_IT_IS` for adapters that need no row, `UNIFORM` for the average of the
        skills, a way of `poly_jax.evaluation.unknown_tasks`, or a variant of adapting without examples.
    """

    method: MultitaskMethod
    answers: tuple[str, ...]

    def has_answer(self, answer: str, form: Wording) -> bool:
        """Whether there is such an answer: the nearest text has words in common, and new words have none."""
        return answer in self.answers and (answer != "nearest" or form == FORMS[0])


def _entry(method: MultitaskMethod, rate: float, *answers: str) -> Entry:
    return Entry(dataclasses.replace(method, rates=(rate,), adaptations=()), answers)


_MOLORA = MultitaskMethod("MoLoRA", f"{RECIPES}/molora.gin")
_MTL_LORA = MultitaskMethod("MTL-LoRA", f"{RECIPES}/mtl_lora.gin")
_SMEAR = MultitaskMethod("SMEAR", f"{RECIPES}/smear.gin")

# The opaque benchmark uses the same rates. For routers that look at inputs, they were chosen from 1e-2 and
# 3e-2 by the training tasks' scores in short runs (docs/zero_shot.md).
ENTRIES = (
    _entry(POLY, 3e-2, UNIFORM, *UNKNOWN),
    _entry(SHARED_WIDE, 1e-2, AS_IT_IS),
    _entry(_MOLORA, 1e-2, AS_IT_IS, UNIFORM),
    _entry(_SMEAR, 3e-2, AS_IT_IS, UNIFORM),
    _entry(PRIVATE, 1e-2, UNIFORM, "arrow", "phatgoose"),
    _entry(MHR, 3e-2, UNIFORM, *UNKNOWN),
    _entry(C_POLY, 1e-2, UNIFORM),
    _entry(_MTL_LORA, 3e-2, UNIFORM),
)
"""The methods in the order in which they are computed."""
