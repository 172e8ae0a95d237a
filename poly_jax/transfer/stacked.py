"""Many adaptations in one program: each has its own adapters and examples, all share the frozen backbone."""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from poly_jax.errors import UserError
from poly_jax.model.generate import Decoding, generate
from poly_jax.model.loss import TokenLoss
from poly_jax.model.transformer import Transformer, init_parameters
from poly_jax.training.optimizer import Optimizer
from poly_jax.training.partition import is_adapter, is_inventory, merge, selects, split
from poly_jax.training.update import Update, start
from poly_jax.transfer.few_shot import batch_indices
from poly_jax.transfer.variants import Variant

Arrays = Mapping[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Stack:
    """Adapters of several new tasks.

    Attributes:
      model: of one task, in evaluation mode.
      trained: the trained trees, stacked on a leading axis.
      frozen: what they share; adapters that are not trained (MHR-z's skills) among it.
      losses: training loss of every adaptation at every step, [steps, adaptations].
    """

    model: Transformer
    trained: dict[str, Any]
    frozen: dict[str, Any]
    losses: Float[np.ndarray, "steps adaptations"]

    def predict(
        self, inputs: Int[np.ndarray, "adaptations examples length"], decoding: Decoding
    ) -> Int[np.ndarray, "adaptations examples targets"]:
        """Target tokens that each adapted model decodes for its own inputs."""
        return np.asarray(_predict(self.model, decoding, self.trained, self.frozen, inputs))


def adapt_many(
    source: Transformer,
    parameters: dict[str, Any],
    variant: Variant | None,
    examples: Sequence[Arrays],
    seeds: Sequence[int],
    *,
    steps: int,
    batch_size: int,
    optimizer: Optimizer,
    loss: TokenLoss = TokenLoss(),
) -> Stack:
    """Adapts one source model to several sets of examples at once, each as `adapt` would with its seed.

    Args:
      source: the model that learned the skills.
      parameters: all of its parameters.
      variant: what is trained and where it starts; None for fresh adapters of the source's kind (a control).
      examples: of each adaptation: equally many, as the model's batch.
      seeds: of each adaptation: fresh router row, batches, dropout and sampling.
      steps: optimizer steps.
      batch_size: examples of each adaptation per step.
      optimizer: of the trained adapters.
      loss: of the target tokens.

    Raises:
      UserError: the variant does not fit the source, or the adaptations have different numbers of examples.
    """
    counts = {len(arrays["task_ids"]) for arrays in examples}
    if len(counts) != 1 or len(examples) != len(seeds):
        raise UserError(
            f"{len(examples)} adaptations with {sorted(counts)} examples and {len(seeds)} seeds cannot be"
            " stacked"
        )
    assert source.adapters is not None
    adapters = (
        variant.adapters(source.adapters) if variant else dataclasses.replace(source.adapters, n_tasks=1)
    )
    model = Transformer(source.config, adapters)
    skills, backbone = split(parameters, is_adapter)

    def initial(seed_key):
        fresh, _ = split(init_parameters(model, seed_key)[0], is_adapter)
        return split(variant.initial(skills, fresh, skill) if variant else fresh, selects(trainable))[0]

    skill = source.adapters.skill
    trainable = variant.trainable if variant else "adapters"
    keys = jax.vmap(jax.random.key)(jnp.asarray(seeds))
    trained = jax.jit(jax.vmap(initial))(keys)
    frozen_adapters, _ = split(skills, lambda path: not selects(trainable)(path) and is_inventory(path))
    frozen = merge(backbone, frozen_adapters)

    update = Update(dataclasses.replace(model, train=True), loss, optimizer.transformation(steps))
    states = jax.jit(jax.vmap(functools.partial(start, optimizer=update.optimizer)))(trained)
    step_function = jax.jit(jax.vmap(update, in_axes=(0, None, 0, 0)), donate_argnums=0)
    (count,) = counts
    losses = []
    for step in range(steps):
        batch = _batches(examples, seeds, count, batch_size, step)
        states, metrics = step_function(states, frozen, batch, keys)
        losses.append(metrics["loss"])
    return Stack(model, states.trained, frozen, np.asarray(jnp.stack(losses)))


def _batches(
    examples: Sequence[Arrays], seeds: Sequence[int], count: int, batch_size: int, step: int
) -> dict[str, np.ndarray]:
    rows = [batch_indices(count, batch_size, seed, step) for seed in seeds]
    return {
        name: np.stack([arrays[name][chosen] for arrays, chosen in zip(examples, rows, strict=True)])
        for name in examples[0]
    }


@functools.partial(jax.jit, static_argnums=(0, 1))
def _predict(model, decoding, trained, frozen, inputs):
    def one(trained, inputs):
        ids = jnp.zeros((inputs.shape[0],), jnp.int32)
        return generate(model, merge(frozen, trained), inputs, ids, decoding).tokens

    return jax.vmap(one)(trained, inputs)
