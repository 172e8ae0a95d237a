"""What adapting to a new task starts from, and what it trains: the variants of the papers."""

import dataclasses
from typing import Any, Literal

from poly_jax.adapters.config import Adapters
from poly_jax.adapters.lora import LoRA
from poly_jax.adapters.skill import Skill
from poly_jax.errors import UserError
from poly_jax.routing.fixed import PrivateRouter, SharedRouter
from poly_jax.transfer.gradient_free_search import Choice, SearchedWeights, SelectedSkills
from poly_jax.transfer.combination import Combination, average_skills, combine
from poly_jax.weights.parameter_names import Trainable, is_inventory
from poly_jax.weights.tree import merge, split

Tree = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Variant:
    """A way to adapt (arXiv 2211.03831, section 3; 2202.13914, section 3.3).

    Attributes:
      name: "mhr" or "poly" with a suffix, or that of a baseline.
      skills: what the new task's skills start as: "kept" (all of the run's), "combined" (one: their average,
        or what `choice` finds), "fresh", or "none" (no adapters: the model itself is trained).
      trainable: which of the new task's parameters are trained.
      routes: a new task gets a row of logits; else it has one adapter.
      choice: how the combined skills are chosen; None for the average of all.
      trains: False where the start is the result.
    """

    name: str
    skills: Literal["kept", "combined", "fresh", "none"]
    trainable: Trainable
    routes: bool = False
    choice: type[Choice] | None = None
    trains: bool = True

    def adapters(self, trained: Adapters | None, n_tasks: int = 1) -> Adapters | None:
        """The adapters of the new tasks' model, from those that were trained on many tasks.

        Raises:
          UserError: the variant does not fit a run with these adapters.
        """
        if self.skills == "none":
            return None
        if trained is None:
            raise UserError(f"variant {self.name!r} needs a run with adapters, and this has none; use 'full'")
        self._check(trained)
        if self.skills == "combined":
            trained = averaged_adapters(trained, self.n_combined(trained))
        elif not self.routes:
            trained = dataclasses.replace(trained, router=SharedRouter())
        # A skill of the new task's own is fresh: where skills are not trained, or one is, it is left out.
        private = trained.private_skill if self.trainable == "adapters" else None
        return dataclasses.replace(trained, private_skill=private, n_tasks=n_tasks)

    def n_combined(self, trained: Adapters) -> int:
        """How many skills are combined into one."""
        return self.choice().size(trained.inventory_size) if self.choice else trained.inventory_size

    def initial(
        self,
        trained: Tree,
        fresh: Tree,
        skill: Skill,
        combination: Combination | None = None,
        rows: Tree | None = None,
    ) -> Tree:
        """The new task's adapters before the first step.

        Args:
          trained: skills and routers after training on many tasks.
          fresh: newly drawn ones of the new task's model, for the router's row and a skill of the task's own.
          skill: kind of the trained skills.
          combination: of the skills into one, where the variant has a choice.
          rows: the routers' parameters in place of fresh ones.
        """
        if self.skills == "fresh":
            return merge(fresh, rows or {})
        skills, _ = split(trained, is_inventory)
        if self.skills == "combined":
            skills = combine(skills, skill, combination) if combination else average_skills(skills, skill)
        return merge(split(fresh, is_inventory)[1], rows or {}, skills)

    def _check(self, trained: Adapters) -> None:
        size, own = trained.inventory_size, family(trained)
        has_private = isinstance(trained.router, PrivateRouter)
        soups = "'soup', 'soup-selected' or 'lorahub'"
        if self.name in ("private", "zero-shot"):
            return
        if self.name == "shared":
            if size != 1:
                others = soups if has_private else f"'{own}', '{own}-z' or '{own}-mu'"
                raise UserError(
                    f"variant 'shared' continues one adapter, and this run has {size} skills; use {others}"
                )
            return
        if size == 1:
            raise UserError(
                f"variant {self.name!r} needs an inventory of skills, and this run has one; use 'shared', or"
                " 'private' for a fresh one"
            )
        if self.name == "lorahub":
            if not isinstance(trained.skill, LoRA) or trained.skill.merge_after:
                raise UserError(
                    "variant 'lorahub' sums LoRA's factors, and this run's skills are not mixed so"
                )
            return
        if self.name.startswith("soup"):
            if not has_private:
                raise UserError(
                    f"variant {self.name!r} averages adapters that were trained apart, as a run with"
                    f" routers/private.gin has; use '{own}-mu' for the average of this run's skills"
                )
            return
        if has_private:
            raise UserError(
                f"variant {self.name!r} needs skills that tasks share, and this run has one for each; use"
                f" {soups}"
            )
        has_rows = bool(trained.router.parameters(1, trained.n_splits, size))
        if self.name == "random":
            if not has_rows:
                raise UserError(
                    f"variant 'random' draws a router's row, and {type(trained.router).__name__} has none;"
                    " use 'private'"
                )
            return
        if not self.name.startswith(own):
            fitting = own + self.name.removeprefix("mhr").removeprefix("poly")
            raise UserError(
                f"variant {self.name!r} does not fit a run with n_splits {trained.n_splits}; use {fitting!r}"
            )
        if self.trainable == "router" and not has_rows:
            raise UserError(
                f"variant {self.name!r} trains the router only, and {type(trained.router).__name__} has"
                f" nothing to train; use {own!r} or '{own}-mu'"
            )


def family(adapters: Adapters) -> str:
    """ "poly" for adapters that are mixed whole, "mhr" for those mixed per head."""
    return "mhr" if adapters.n_splits > 1 else "poly"


def usual(adapters: Adapters | None) -> str:
    """The name of the variant that trains most of what a run has learned."""
    if adapters is None:
        return "full"
    if adapters.inventory_size == 1:
        return "shared"
    return "soup" if isinstance(adapters.router, PrivateRouter) else family(adapters)


def averaged_adapters(adapters: Adapters, count: int | None = None) -> Adapters:
    """Those of the one adapter that the uniform average of `count` skills is; None for all."""
    skill = adapters.skill.averaged(count or adapters.inventory_size)
    return dataclasses.replace(adapters, skill=skill, router=SharedRouter(), private_skill=None)


def _of_family(name: str) -> tuple[Variant, ...]:
    return (
        Variant(name, "kept", "adapters", routes=True),
        Variant(f"{name}-z", "kept", "router", routes=True),
        Variant(f"{name}-mu", "combined", "skills"),
    )


VARIANTS: dict[str, Variant] = {
    variant.name: variant
    for variant in (
        *_of_family("mhr"),
        *_of_family("poly"),
        Variant("shared", "kept", "skills"),
        Variant("soup", "combined", "skills"),
        Variant("soup-selected", "combined", "skills", choice=SelectedSkills),
        Variant("random", "fresh", "adapters", routes=True),
        Variant("private", "fresh", "skills"),
        Variant("full", "none", "all"),
        Variant("zero-shot", "combined", "skills", trains=False),
        Variant("lorahub", "combined", "skills", choice=SearchedWeights, trains=False),
    )
}


def find(name: str) -> Variant:
    """The variant of a name.

    Raises:
      UserError: there is none.
    """
    if name not in VARIANTS:
        raise UserError(f"variant {name!r} is not known; use one of {', '.join(VARIANTS)}")
    return VARIANTS[name]
