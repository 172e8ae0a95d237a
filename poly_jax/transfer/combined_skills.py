"""One adapter made of an inventory of skills: their average, or a weighted sum of some of them."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import traverse_util

from poly_jax.adapters.skill import Skill
from poly_jax.transfer.combination import Combination
from poly_jax.weights import parameter_names as names
from poly_jax.weights.parameter_names import axis as axis_of
from poly_jax.weights.parameter_names import module

Tree = dict[str, Any]


def combine(skills: Tree, skill: Skill, combination: Combination) -> Tree:
    """Combine skills into a single skill at every site, of the kind `skill.averaged(n)`.

    LoRA's A and B are combined separately, as in routing (arXiv 2211.03831, eq. 4; LoraHub's eq. 2,
    arXiv 2307.13269, is the same with weights that need not sum to 1).

    Args:
      skills: the inventory's parameters.
      skill: the kind of the skills.
      combination: indices `[n]` and factors `[n]` of the skills.
    """

    def pick(path: str, leaf: jax.Array) -> jax.Array:
        axis = axis_of(path, "skills")
        assert axis is not None, path
        picked = jnp.take(leaf, combination.skills, axis=axis)
        shape = [-1 if i == axis else 1 for i in range(picked.ndim)]
        return picked * jnp.reshape(combination.factors, shape)

    leaves = traverse_util.flatten_dict(skills, sep="/")
    picked = {path: pick(path, leaf) for path, leaf in leaves.items()}
    return average_skills(traverse_util.unflatten_dict(picked, sep="/"), skill)


def average_skills(skills: Tree, skill: Skill) -> Tree:
    """Make the single skill at every site that equals all K skills at equal weights; see `Skill.average`."""
    sites: dict[str, dict[str, jax.Array]] = {}
    for path, leaf in traverse_util.flatten_dict(skills, sep="/").items():
        sites.setdefault(module(path), {})[names.leaf(path)] = leaf
    means = {
        f"{site}/{name}": mean
        for site, leaves in sites.items()
        for name, mean in skill.average(leaves).items()
    }
    return traverse_util.unflatten_dict(means, sep="/")
