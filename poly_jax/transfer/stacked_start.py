"""The trained trees of several adaptations before the first step, stacked on a leading axis."""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, PRNGKeyArray

from poly_jax.adapters.skill import Skill
from poly_jax.model.loss import Loss
from poly_jax.model.parameters import init_parameters
from poly_jax.model.transformer import Transformer
from poly_jax.transfer.adaptation import Adaptation
from poly_jax.transfer.choose_combinations import choose_combinations
from poly_jax.transfer.combination import Combination
from poly_jax.transfer.new_adapters import initial_parameters
from poly_jax.transfer.ranks import widened, widest
from poly_jax.weights.parameter_names import Trainable, is_adapter_parameter, is_inventory, selects
from poly_jax.weights.tree import merge, split, unflatten

Tree = dict[str, Any]


def common_model(adaptations: Sequence[Adaptation]) -> Transformer:
    """The model that holds the new tasks' adapters of every adaptation."""
    model = adaptations[0].model
    if model.adapters is None:
        return model
    skills = [each.model.adapters.skill for each in adaptations if each.model.adapters is not None]
    return Transformer(model.config, dataclasses.replace(model.adapters, skill=widest(skills)))


def trained_parts(adaptations: Sequence[Adaptation], names: Sequence[str]) -> dict[str, Any] | None:
    """Whether each adaptation trains each parameter, [adaptations]; None where all train the same ones."""
    if len(_kinds(adaptations)) == 1:
        return None
    chosen: dict[str, Bool[np.ndarray, "adaptations"]] = {
        name: np.array([selects(each.variant.trainable)(name) for each in adaptations]) for name in names
    }
    return unflatten(chosen)


def begin(
    adaptations: Sequence[Adaptation], model: Transformer, backbone: Tree, *, loss: Loss, batch_size: int
) -> tuple[Tree, Tree]:
    """The stacked trees of all that any adaptation trains, and the frozen tree that they share.

    Args:
      adaptations: adaptations that `check_common` allows.
      model: their common model.
      backbone: the parameters of the T5.
      loss: the loss by which a variant that chooses skills compares combinations.
      batch_size: number of examples that the comparison computes at once.
    """
    if model.adapters is None:
        return _copied(backbone, len(adaptations)), {}
    order: list[int] = []
    parts: list[Tree] = []
    for group in _groups(adaptations):
        first = adaptations[group[0]]
        assert first.source.adapters is not None
        combinations = choose_combinations(
            first.variant,
            first.source,
            merge(backbone, first.parameters),
            [adaptations[i].examples for i in group],
            [adaptations[i].seed for i in group],
            loss=loss,
            batch_size=batch_size,
        )
        initial = functools.partial(_initial, first, model.adapters.skill, _kinds(adaptations))
        skills, _ = split(first.parameters, is_adapter_parameter)
        keys = keys_of([adaptations[i] for i in group])
        drawn = jax.jit(jax.vmap(initial, in_axes=(None, None, 0, 0)))
        parts.append(drawn(skills, first.rows, keys, combinations))
        order += group
    trained = parts[0] if len(parts) == 1 else _joined(parts, np.argsort(order))
    first = adaptations[0]
    if first.variant.skills != "kept" or _kinds(adaptations) != ("router",):
        return trained, backbone
    # Only routers are trained, on the skills of one source.
    left = lambda path: is_inventory(path) and not selects(first.variant.trainable)(path)  # noqa: E731
    return trained, merge(backbone, split(first.parameters, left)[0])


def keys_of(adaptations: Sequence[Adaptation]) -> PRNGKeyArray:
    """The key of each adaptation's seed."""
    return jax.vmap(jax.random.key)(jnp.asarray([each.seed for each in adaptations]))


def _kinds(adaptations: Sequence[Adaptation]) -> tuple[Trainable, ...]:
    return tuple(sorted({each.variant.trainable for each in adaptations}))


def _groups(adaptations: Sequence[Adaptation]) -> list[list[int]]:
    """The numbers of the adaptations that start in the same way, apart from their seeds and examples."""
    groups: dict[Any, list[int]] = {}
    for number, each in enumerate(adaptations):
        way = tuple(map(id, (each.source, each.parameters, each.variant, each.rows)))
        groups.setdefault(way, []).append(number)
    return list(groups.values())


@functools.partial(jax.jit, static_argnums=1)
def _copied(tree: Tree, count: int) -> Tree:
    return jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (count, *leaf.shape)), tree)


def _initial(
    way: Adaptation,
    skill: Skill,
    kinds: Sequence[Trainable],
    skills: Tree,
    rows: Tree | None,
    key: PRNGKeyArray,
    combination: Combination | None,
) -> Tree:
    """What is trained of an adaptation that starts as `way` does, with the rank of a wider skill."""
    assert way.source.adapters is not None
    fresh, _ = split(init_parameters(way.model, key)[0], is_adapter_parameter)
    start = initial_parameters(way.variant, skills, fresh, way.source.adapters.skill, combination, rows, key)
    return widened(split(start, lambda path: any(selects(kind)(path) for kind in kinds))[0], skill)


@jax.jit
def _joined(parts: Sequence[Tree], order: Array) -> Tree:
    return jax.tree.map(lambda *leaves: jnp.concatenate(leaves)[order], *parts)
