"""LoRA skills of several ranks in one program: each has the rank of the widest, whose further columns are 0.

With both factors at 0, the columns beyond the rank have no gradient, and an optimizer that looks at each
number alone leaves them as they are.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from poly_jax.adapters.lora import LoRA
from poly_jax.adapters.skill import Skill
from poly_jax.weights.parameter_names import is_inventory, leaf
from poly_jax.weights.tree import flatten, unflatten

Tree = dict[str, Any]
# The axis of the rank in each factor, counted from the end.
_RANK_AXES = {"lora_a": -1, "lora_b": -2}


def without_rank(skill: Skill) -> Skill:
    """A skill without what may differ in one program: its rank, its scale and how it is drawn."""
    if type(skill) is not LoRA:
        return skill
    return dataclasses.replace(skill, rank=1, alpha=1.0, init="mhr")


def widest(skills: Sequence[Skill]) -> Skill:
    """The kind of skill that holds each of several, which are equal or differ in rank and scale.

    The scale of the widest LoRA is 1 where skills differ, and `scaled` gives each its own.
    """
    first, *others = skills
    if all(skill == first for skill in others):
        return first
    assert isinstance(first, LoRA)
    rank = max(skill.rank for skill in skills if isinstance(skill, LoRA))
    return dataclasses.replace(first, rank=rank, alpha=float(rank))


def scale(skill: Skill) -> float:
    """The factor of a LoRA's update, alpha / rank."""
    assert isinstance(skill, LoRA)
    return skill.alpha / skill.rank


def widened(adapters: Tree, skill: Skill) -> Tree:
    """The parameters of adapters with the rank of a wider skill."""
    if not isinstance(skill, LoRA):
        return adapters

    def wide(path: str, array: Float[Array, "..."]) -> Float[Array, "..."]:
        axis = _RANK_AXES.get(leaf(path)) if is_inventory(path) else None
        if axis is None:
            return array
        missing = [(0, 0)] * array.ndim
        missing[axis] = (0, skill.rank - array.shape[axis])
        return jnp.pad(array, missing)

    return unflatten({path: wide(path, array) for path, array in flatten(adapters).items()})


def scaled(adapters: Tree, factor: Float[Array, ""] | None) -> Tree:
    """The parameters of adapters whose updates, and so each B, are multiplied by a factor; None is 1."""
    if factor is None:
        return adapters

    def multiplied(path: str, array: jax.Array) -> jax.Array:
        return array * factor if is_inventory(path) and leaf(path) == "lora_b" else array

    return unflatten({path: multiplied(path, array) for path, array in flatten(adapters).items()})
