"""How well combinations of skills do on a few examples, without training."""

import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from poly_jax.adapters.skill import Skill
from poly_jax.model.loss import Loss
from poly_jax.model.transformer import Transformer
from poly_jax.transfer.combination import Combination, combine
from poly_jax.weights.tree import merge

Tree = dict[str, Any]


def in_batches(examples: Mapping[str, np.ndarray], batch_size: int, n_batches: int) -> dict[str, np.ndarray]:
    """Examples as `[n_batches, batch_size, ...]`, filled up with rows of zeros, which count in no loss."""
    filled = n_batches * batch_size

    def cut(leaf: np.ndarray) -> np.ndarray:
        rows = np.zeros((filled, *leaf.shape[1:]), leaf.dtype)
        rows[: len(leaf)] = leaf
        return rows.reshape(n_batches, batch_size, *leaf.shape[1:])

    return {name: cut(leaf) for name, leaf in examples.items()}


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def combination_losses(
    model: Transformer,
    loss: Loss,
    skill: Skill,
    skills: Tree,
    backbone: Tree,
    batches: dict[str, Float[Array, "batches batch ..."]],
    combinations: Combination,
) -> Float[Array, "combinations"]:
    """The loss of all examples under each combination, without dropout or sampling.

    Args:
      model: of one adapter of the kind `skill.averaged(n)`, in evaluation mode.
      loss: as in training.
      skill: kind of the inventory's skills.
      skills: the inventory.
      backbone: the frozen tree.
      batches: as `in_batches` cuts them; their task ids are 0.
      combinations: of n skills each, `[combinations, n]`.
    """

    def total(combination: Combination) -> Float[Array, ""]:
        parameters = merge(backbone, combine(skills, skill, combination))
        apply = functools.partial(model.apply, {"params": parameters})

        def add(_, batch):
            return None, (loss.totals(apply, batch), loss.divisors(batch))

        _, terms = jax.lax.scan(add, None, batches)
        totals, divisors = jax.tree.map(jnp.sum, terms)
        return sum((totals[name] / jnp.maximum(divisors[name], 1.0) for name in totals), jnp.zeros(()))

    return jax.lax.map(total, combinations)
