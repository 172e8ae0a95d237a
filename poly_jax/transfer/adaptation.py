"""One of several adaptations that a program makes at once."""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import numpy as np

from poly_jax.model.parameters import parameter_shapes
from poly_jax.model.transformer import Transformer
from poly_jax.training.optimizer import Optimizer
from poly_jax.transfer.new_adapters import new_adapters
from poly_jax.transfer.variants import Variant
from poly_jax.weights.parameter_names import selects
from poly_jax.weights.tree import flatten


@dataclasses.dataclass(frozen=True, eq=False)
class Adaptation:
    """A new task, the model that is adapted to it, and the way to adapt.

    Attributes:
      source: the model that learned the skills.
      parameters: its parameters, of which the backbone is not read.
      variant: the way to adapt.
      examples: the task's examples, as the model's batch.
      seed: seed of the fresh router row, batches, dropout and sampling.
      steps: optimizer steps; none are taken where the variant does not train.
      optimizer: the optimizer of the trained parameters.
      rows: the routers' parameters that the new task starts from; None for fresh parameters.
      task: name of the task, for routers that look tasks up by name.
    """

    source: Transformer
    parameters: dict[str, Any]
    variant: Variant
    examples: Mapping[str, np.ndarray]
    seed: int
    steps: int
    optimizer: Optimizer
    rows: dict[str, Any] | None = None
    task: str | None = None

    @functools.cached_property
    def model(self) -> Transformer:
        """The model of the new task, in evaluation mode.

        Raises:
          UserError: the variant does not fit the source.
        """
        adapters = new_adapters(self.variant, self.source.adapters)
        if adapters is not None and self.task is not None:
            adapters = adapters.for_tasks((self.task,))
        return Transformer(self.source.config, adapters)

    @functools.cached_property
    def trained_size(self) -> int:
        """The number of parameters that the variant trains, or sets where it does not train."""
        chosen = selects(self.variant.trainable)
        shapes = flatten(parameter_shapes(self.model)[0])
        return sum(leaf.size for path, leaf in shapes.items() if chosen(path))
