"""One adapter made of an inventory of skills: their average, a weighted sum of some, or a merge of all."""

import functools
import zlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, PRNGKeyArray

from poly_jax.adapters.skill import Skill
from poly_jax.transfer.combination import Combination
from poly_jax.transfer.merging import Merging
from poly_jax.weights import parameter_names as names
from poly_jax.weights.parameter_names import axis as axis_of
from poly_jax.weights.tree import flatten, unflatten

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
    return average_skills(pick(skills, combination), skill)


def pick(skills: Tree, combination: Combination) -> Tree:
    """Take the skills of a combination out of an inventory, each multiplied by its factor."""

    def picked(path: str, leaf: jax.Array) -> jax.Array:
        axis = axis_of(path, "skills")
        assert axis is not None, path
        taken = jnp.take(leaf, combination.skills, axis=axis)
        shape = [-1 if i == axis else 1 for i in range(taken.ndim)]
        return taken * jnp.reshape(combination.factors, shape)

    return unflatten({path: picked(path, leaf) for path, leaf in flatten(skills).items()})


def average_skills(skills: Tree, skill: Skill) -> Tree:
    """Make the single skill at every site that equals all K skills at equal weights; see `Skill.average`."""
    means = {
        f"{module}/{name}": mean
        for module, leaves in names.by_module(flatten(skills)).items()
        for name, mean in skill.average(leaves).items()
    }
    return unflatten(means)


def merge_skills(skills: Tree, merging: Merging, key: PRNGKeyArray) -> Tree:
    """Merge LoRA skills into a single skill at every site, A and B separately, as PEFT merges adapters.

    The weight w of a skill multiplies A by `sign(w) sqrt(|w|)` and B by `sqrt(|w|)`.

    Args:
      skills: the parameters of the skills that are merged.
      merging: way to merge a factor.
      key: key of the random numbers, which are the same whether layers are scanned or not.
    """

    def one(path: str, leaf: jax.Array) -> jax.Array:
        axis = axis_of(path, "skills")
        assert axis is not None, path
        if not names.is_stacked(path):
            return jnp.expand_dims(factor(path, jnp.moveaxis(leaf, axis, 0)), axis)
        layers = [
            factor(names.in_layer(path, number), jnp.moveaxis(layer, axis - 1, 0))
            for number, layer in enumerate(leaf)
        ]
        return jnp.expand_dims(jnp.stack(layers), axis)

    def factor(path: str, tensors: Float[jax.Array, "skills ..."]) -> Float[jax.Array, "..."]:
        weights = merging.skill_weights(len(tensors))
        roots = np.sqrt(np.abs(weights))
        if names.leaf(path) == "lora_a":
            # One factor alone has the sign, because two signs would cancel.
            roots = np.where(weights < 0, -roots, roots)
        own = jax.random.fold_in(key, zlib.crc32(path.encode()))
        return merging.merge(tensors, roots, functools.partial(jax.random.uniform, own))

    return unflatten({path: one(path, leaf) for path, leaf in flatten(skills).items()})
