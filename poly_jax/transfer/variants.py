"""What adapting to a new task starts from, and what it trains: the variants of the papers."""

import dataclasses
from typing import Any

import jax
from flax import traverse_util

from poly_jax.adapters.config import Adapters
from poly_jax.adapters.skill import Skill
from poly_jax.errors import UserError
from poly_jax.routing.fixed import SharedRouter
from poly_jax.training.partition import Trainable, is_inventory, merge, split

Tree = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Variant:
    """A way to adapt (arXiv 2211.03831, section 3; 2202.13914, section 3.3).

    Attributes:
      name: "mhr" or "poly" with a suffix, or "shared".
      trainable: which of the new task's adapters are trained.
      averages: the skills start as one, their uniform average.
      fresh_router: a new task gets a new row of logits.
    """

    name: str
    trainable: Trainable
    averages: bool
    fresh_router: bool

    def adapters(self, trained: Adapters, n_tasks: int = 1) -> Adapters:
        """The adapters of the new tasks' model, from those that were trained on many tasks.

        Raises:
          UserError: the variant does not fit a run with these adapters.
        """
        size = trained.inventory_size
        if self.name == "shared":
            if size != 1:
                raise UserError(
                    f"variant 'shared' continues one adapter, and this run has {size} skills; use"
                    f" '{family(trained)}', '{family(trained)}-z' or '{family(trained)}-mu'"
                )
        elif size == 1:
            raise UserError(
                f"variant {self.name!r} needs an inventory of skills, and this run has one; use 'shared'"
            )
        elif not self.name.startswith(family(trained)):
            fitting = family(trained) + self.name.removeprefix("mhr").removeprefix("poly")
            raise UserError(
                f"variant {self.name!r} does not fit a run with n_splits {trained.n_splits}; use {fitting!r}"
            )
        if self.averages:
            trained = averaged_adapters(trained)
        elif self.trainable == "router" and not trained.router.parameters(1, 1, size):
            raise UserError(
                f"variant {self.name!r} trains the router only, and {type(trained.router).__name__} has nothing"
                f" to train; use {family(trained)!r} or '{family(trained)}-mu'"
            )
        elif not self.fresh_router:
            trained = dataclasses.replace(trained, router=SharedRouter())
        # A skill of the new task's own is fresh: where skills are not trained, or one is, it is left out.
        private = trained.private_skill if self.trainable == "adapters" else None
        return dataclasses.replace(trained, private_skill=private, n_tasks=n_tasks)

    def initial(self, trained: Tree, fresh: Tree, skill: Skill) -> Tree:
        """The new task's adapters before the first step.

        Args:
          trained: skills and routers after training on many tasks.
          fresh: newly drawn ones of the new task's model, for the router's row and a skill of the task's own.
          skill: kind of the trained skills.
        """
        skills, _ = split(trained, is_inventory)
        if self.averages:
            skills = average_skills(skills, skill)
        return merge(split(fresh, is_inventory)[1], skills)


def family(adapters: Adapters) -> str:
    """ "poly" for adapters that are mixed whole, "mhr" for those mixed per head."""
    return "mhr" if adapters.n_splits > 1 else "poly"


def averaged_adapters(adapters: Adapters) -> Adapters:
    """Those of the one adapter that the uniform average of an inventory is."""
    skill = adapters.skill.averaged(adapters.inventory_size)
    return dataclasses.replace(adapters, skill=skill, router=SharedRouter(), private_skill=None)


def average_skills(skills: Tree, skill: Skill) -> Tree:
    """One skill in place of K at every site: what all do at equal weights; see `Skill.average`."""
    sites: dict[str, dict[str, jax.Array]] = {}
    for path, leaf in traverse_util.flatten_dict(skills, sep="/").items():
        site, _, name = path.rpartition("/")
        sites.setdefault(site, {})[name] = leaf
    means = {
        f"{site}/{name}": mean
        for site, leaves in sites.items()
        for name, mean in skill.average(leaves).items()
    }
    return traverse_util.unflatten_dict(means, sep="/")


_PARTS: tuple[tuple[str, Trainable, bool], ...] = (
    ("", "adapters", False),
    ("-z", "router", False),
    ("-mu", "skills", True),
)
VARIANTS: dict[str, Variant] = {
    name + suffix: Variant(name + suffix, trainable, averages, not averages)
    for name in ("mhr", "poly")
    for suffix, trainable, averages in _PARTS
}
VARIANTS["shared"] = Variant("shared", "skills", averages=False, fresh_router=False)


def find(name: str) -> Variant:
    """The variant of a name.

    Raises:
      UserError: there is none.
    """
    if name not in VARIANTS:
        raise UserError(f"variant {name!r} is not known; use one of {', '.join(VARIANTS)}")
    return VARIANTS[name]
