"""Chooses the combination of skills that each new task starts from, by its loss on few-shot examples."""

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from poly_jax.adapters.skill import Skill
from poly_jax.model.loss import Loss
from poly_jax.model.transformer import Transformer
from poly_jax.transfer.combination import Combination
from poly_jax.transfer.combined_skills import combine
from poly_jax.transfer.few_shot import count_examples, draw_batch
from poly_jax.transfer.new_adapters import averaged_adapters
from poly_jax.transfer.variants import Variant
from poly_jax.weights.parameter_names import is_adapter_parameter, is_inventory
from poly_jax.weights.tree import merge, split

Tree = dict[str, Any]


def choose_combinations(
    variant: Variant,
    source: Transformer,
    parameters: Tree,
    examples: Sequence[Mapping[str, np.ndarray]],
    seeds: Sequence[int],
    *,
    loss: Loss,
    batch_size: int,
) -> Combination | None:
    """A combination for each of several new tasks, `[adaptations, n]`; None if the variant chooses none.

    Args:
      variant: the way to adapt.
      source: the model that learned the skills.
      parameters: all of its parameters.
      examples: the examples of each new task; an example with several prompts is shown by one of them.
      seeds: the seed of each adaptation.
      loss: the loss that training minimises.
      batch_size: number of examples that are computed at once.
    """
    if variant.choice is None:
        return None
    assert source.adapters is not None
    choice, adapters = variant.choice, source.adapters
    adapted, backbone = split(parameters, is_adapter_parameter)
    skills, _ = split(adapted, is_inventory)
    # Every task gets as many batches as the largest needs, so that all use the same program.
    counts = [count_examples(arrays) for arrays in examples]
    n_batches = max(-(-count // batch_size) for count in counts)
    chosen = []
    for arrays, count, seed in zip(examples, counts, seeds, strict=True):
        # All examples once, each with one of its prompts.
        batches = in_batches(draw_batch(arrays, count, seed, step=0), batch_size, n_batches)

        def losses(
            combinations: Combination, batches: dict[str, np.ndarray] = batches
        ) -> Float[np.ndarray, "combinations"]:
            model = Transformer(source.config, averaged_adapters(adapters, combinations.skills.shape[-1]))
            return np.asarray(
                combination_losses(model, loss, adapters.skill, skills, backbone, batches, combinations)
            )

        chosen.append(choice.choose(adapters.inventory_size, losses, seed))
    return jax.tree.map(lambda *each: np.stack(each), *chosen)


def in_batches(examples: Mapping[str, np.ndarray], batch_size: int, n_batches: int) -> dict[str, np.ndarray]:
    """Examples as `[n_batches, batch_size, ...]`, padded with rows of zeros, which losses do not count."""
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
      model: a model with one adapter of the kind `skill.averaged(n)`, in evaluation mode.
      loss: the loss that training minimises.
      skill: kind of the inventory's skills.
      skills: the inventory's parameters.
      backbone: the frozen tree.
      batches: the examples as `in_batches` cuts them; their task ids are 0.
      combinations: combinations of n skills each, `[combinations, n]`.
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
