"""The combinations of skills that a variant starts new tasks from, found with their examples."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jaxtyping import Float

from poly_jax.model.loss import Loss
from poly_jax.model.transformer import Transformer
from poly_jax.transfer.combination import Combination
from poly_jax.transfer.combination_loss import combination_losses, in_batches
from poly_jax.transfer.few_shot import count_examples, draw_batch
from poly_jax.transfer.variants import Variant, averaged_adapters
from poly_jax.weights.parameter_names import is_adapter_parameter, is_inventory
from poly_jax.weights.tree import split


def choose_combinations(
    variant: Variant,
    source: Transformer,
    parameters: dict[str, Any],
    examples: Sequence[Mapping[str, np.ndarray]],
    seeds: Sequence[int],
    *,
    loss: Loss,
    batch_size: int,
) -> Combination | None:
    """A combination for each of several new tasks, `[adaptations, n]`; None where the variant has no choice.

    Args:
      variant: how to adapt.
      source: the model that learned the skills.
      parameters: all of its parameters.
      examples: of each new task; where one has several prompts it is shown by one of them.
      seeds: of each, for what is drawn.
      loss: as in training.
      batch_size: examples that are computed at once.
    """
    if variant.choice is None:
        return None
    assert source.adapters is not None
    choice, adapters = variant.choice, source.adapters
    adapted, backbone = split(parameters, is_adapter_parameter)
    skills, _ = split(adapted, is_inventory)
    # All as many batches as the largest needs, so that one program serves all.
    counts = [count_examples(arrays) for arrays in examples]
    n_batches = max(-(-count // batch_size) for count in counts)
    chosen = []
    for arrays, count, seed in zip(examples, counts, seeds, strict=True):
        # All examples once, each by one of its prompts.
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
