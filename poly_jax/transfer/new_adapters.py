"""The adapters that a variant makes for new tasks from the adapters of a run that learned many tasks."""

import dataclasses
from typing import Any

from jaxtyping import PRNGKeyArray

from poly_jax.adapters.config import Adapters
from poly_jax.adapters.skill import Skill
from poly_jax.counted import counted
from poly_jax.errors import UserError
from poly_jax.routing.fixed import SharedRouter
from poly_jax.routing.input_router import InputRouter
from poly_jax.transfer.combination import Combination
from poly_jax.transfer.combined_skills import average_skills, merge_skills, pick
from poly_jax.transfer.variants import Variant
from poly_jax.weights.parameter_names import (
    INPUT_ROUTER,
    adapted_map,
    by_module,
    is_input_router,
    is_inventory,
)
from poly_jax.weights.tree import flatten, merge, split, unflatten

Tree = dict[str, Any]


def new_adapters(variant: Variant, trained: Adapters | None, n_tasks: int = 1) -> Adapters | None:
    """The adapters of the new tasks' model; None where the variant trains the model itself.

    Args:
      variant: the way to adapt.
      trained: the adapters that were trained on many tasks; None for a run without adapters.
      n_tasks: number of new tasks.

    Raises:
      UserError: the variant does not suit a run with these adapters.
    """
    if variant.skills == "none":
        return None
    if trained is None:
        raise UserError(
            f"variant {variant.name!r} needs a run with adapters, and this run has none; use 'full'"
        )
    variant.check(trained)
    if variant.own_tasks and n_tasks != trained.n_tasks:
        raise UserError(
            f"variant {variant.name!r} trains on the run's own {counted(trained.n_tasks, 'task')}, not on"
            f" {counted(n_tasks, 'task')}; adapt the run to its own mixture"
        )
    if variant.skills == "combined":
        size = trained.inventory_size
        trained = averaged_adapters(trained, variant.choice.size(size) if variant.choice else size)
    elif not variant.routes:
        trained = dataclasses.replace(trained, router=SharedRouter())
    elif variant.input_router is not None:
        trained = dataclasses.replace(
            trained, router=variant.input_router(), n_skills=trained.inventory_size, granularity="fine"
        )
    elif trained.router.owns_skills:
        # The new task has no skill of its own in the inventory, so it learns a row over all skills.
        trained = dataclasses.replace(trained, router=variant.new_router(), n_skills=trained.inventory_size)
    # A private skill of the new task would be fresh, so it is left out where skills are not trained and where
    # a single skill is trained.
    private = trained.private_skill if variant.trainable == "adapters" else None
    return dataclasses.replace(trained, private_skill=private, n_tasks=n_tasks)


def averaged_adapters(adapters: Adapters, count: int | None = None) -> Adapters:
    """The adapters whose single skill is the uniform average of `count` skills; None averages all."""
    skill = adapters.skill.averaged(count or adapters.inventory_size)
    return dataclasses.replace(adapters, skill=skill, router=SharedRouter(), private_skill=None)


def initial_parameters(
    variant: Variant,
    trained: Tree,
    fresh: Tree,
    skill: Skill,
    combination: Combination | None = None,
    rows: Tree | None = None,
    key: PRNGKeyArray | None = None,
) -> Tree:
    """The parameters of the new tasks' adapters before the first step.

    Args:
      variant: the way to adapt.
      trained: skills and routers after training on many tasks.
      fresh: newly drawn parameters of the new tasks' model, for the router's row and private skills.
      skill: kind of the trained skills.
      combination: the combination of skills, if the variant chooses skills.
      rows: parameters of the routers that replace the fresh ones.
      key: key of the adaptation's seed, for a variant that merges skills at random.

    A router that looks at inputs belongs to the skills, not to the tasks, so it is kept where they are.
    """
    if variant.skills == "fresh":
        return merge(fresh, rows or {})
    skills, _ = split(trained, is_inventory)
    if variant.skills == "combined":
        skills = pick(skills, combination) if combination else skills
        if variant.merging is None:
            skills = average_skills(skills, skill)
        else:
            assert key is not None
            skills = merge_skills(skills, variant.merging, key)
        return merge(split(fresh, is_inventory)[1], rows or {}, skills)
    routers, _ = split(trained, is_input_router)
    if variant.input_router is not None:
        routers = _made_routers(variant.input_router(), skills)
    return merge(split(fresh, is_inventory)[1], routers, rows or {}, skills)


def _made_routers(router: InputRouter, skills: Tree) -> Tree:
    """The parameters of input routers that follow from the skills at every site."""
    return unflatten(
        {
            f"{adapted_map(module)}/{INPUT_ROUTER}/{name}": array
            for module, arrays in by_module(flatten(skills)).items()
            for name, array in router.from_skills(arrays).items()
        }
    )
