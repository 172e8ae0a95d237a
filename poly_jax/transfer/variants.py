"""What adapting to a new task starts from, and what it trains: the variants of the papers."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from poly_jax.adapters.config import Adapters
from poly_jax.errors import UserError
from poly_jax.routing.fixed import SharedRouter
from poly_jax.training.partition import Trainable, merge, split

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
        router = trained.router if self.fresh_router else SharedRouter()
        return dataclasses.replace(trained, router=router, n_tasks=n_tasks)

    def initial(self, trained: Tree, fresh: Tree) -> Tree:
        """The new task's adapters before the first step.

        Args:
          trained: skills and routers after training on many tasks.
          fresh: newly drawn ones of the new task's model, for the router's row.
        """
        skills, _ = split(trained, lambda path: "skills" in path.split("/"))
        if self.averages:
            skills = average_skills(skills)
        _, routers = split(fresh, lambda path: "skills" in path.split("/"))
        return merge(skills, routers)


def family(adapters: Adapters) -> str:
    """ "poly" for adapters that are mixed whole, "mhr" for those mixed per head."""
    return "mhr" if adapters.n_splits > 1 else "poly"


def average_skills(skills: Tree) -> Tree:
    """One skill in place of K, their mean: LoRA's A and B each by itself, as routing does."""

    def average(path: tuple[Any, ...], leaf: jax.Array) -> jax.Array:
        # Leaves are [splits, skills, ...]; under scanned layers the layer axis comes before.
        scanned = any(getattr(key, "key", None) == "layers" for key in path)
        return jnp.mean(leaf, axis=2 if scanned else 1, keepdims=True)

    return jax.tree_util.tree_map_with_path(average, skills)


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
