"""One adapter out of an inventory: the average of all skills, of some of them, or a weighted sum."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util
from jaxtyping import Array, Float, Int

from poly_jax.adapters.skill import Skill
from poly_jax.weights import parameter_names as names
from poly_jax.weights.parameter_names import axis as axis_of
from poly_jax.weights.parameter_names import module

Tree = dict[str, Any]


class Combination(NamedTuple):
    """Which skills are combined, and the factor of each before they are averaged.

    skills: places in the inventory.
    factors: 1 for an average; n times its weight for a sum of n weighted skills.
    """

    skills: Int[Array, "*many n"] | Int[np.ndarray, "*many n"]
    factors: Float[Array, "*many n"] | Float[np.ndarray, "*many n"]

    @classmethod
    def average(cls, skills: Int[np.ndarray, "*many n"]) -> "Combination":
        """The average of these skills."""
        return cls(skills, np.ones(skills.shape, np.float32))

    @classmethod
    def weighted(cls, skills: Int[np.ndarray, "n"], weights: Float[np.ndarray, "*many n"]) -> "Combination":
        """The sum of these skills, each times its weight."""
        skills = np.broadcast_to(skills, weights.shape)
        return cls(skills, (weights.shape[-1] * weights).astype(np.float32))


def combine(skills: Tree, skill: Skill, combination: Combination) -> Tree:
    """One skill at every site; of the kind `skill.averaged(n)`.

    LoRA's A and B are combined each by itself, as routing does (arXiv 2211.03831, eq. 4; LoraHub's eq. 2,
    arXiv 2307.13269, is the same with weights that need not sum to 1).

    Args:
      skills: the inventory's parameters.
      skill: their kind.
      combination: places `[n]` and factors `[n]`.
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
    """One skill in place of K at every site: what all do at equal weights; see `Skill.average`."""
    sites: dict[str, dict[str, jax.Array]] = {}
    for path, leaf in traverse_util.flatten_dict(skills, sep="/").items():
        sites.setdefault(module(path), {})[names.leaf(path)] = leaf
    means = {
        f"{site}/{name}": mean
        for site, leaves in sites.items()
        for name, mean in skill.average(leaves).items()
    }
    return traverse_util.unflatten_dict(means, sep="/")
