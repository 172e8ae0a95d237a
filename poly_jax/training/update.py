"""One training step: the trained tree's gradient, with the frozen tree as it is."""

import dataclasses
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, PRNGKeyArray

from poly_jax.model.loss import TokenLoss
from poly_jax.model.transformer import Transformer
from poly_jax.training.partition import merge

Batch = dict[str, Any]


@flax.struct.dataclass
class TrainState:
    """What changes in a step.

    Attributes:
      step: steps taken.
      trained: the parameters that are trained, and nothing else.
      optimizer: the optimizer's state for them.
    """

    step: Int[Array, ""]
    trained: dict[str, Any]
    optimizer: optax.OptState


def start(trained: dict[str, Any], optimizer: optax.GradientTransformation) -> TrainState:
    """The state before the first step."""
    return TrainState(jnp.zeros((), jnp.int32), trained, optimizer.init(trained))


@dataclasses.dataclass(frozen=True)
class Update:
    """A pure step function; jit it, or vmap it over states to train several at once on one frozen tree.

    Attributes:
      model: in training mode.
      loss: of the target tokens.
      optimizer: of the trained tree.
      microbatches: parts that a batch is cut into, whose gradients are added up before the optimizer's step.
    """

    model: Transformer
    loss: TokenLoss
    optimizer: optax.GradientTransformation
    microbatches: int = 1

    def __call__(
        self, state: TrainState, frozen: dict[str, Any], batch: Batch, key: PRNGKeyArray
    ) -> tuple[TrainState, dict[str, Float[Array, ""]]]:
        """The next state, and the step's `loss` and `gradient_norm` (before clipping).

        `key` is the run's: the step's own randomness is derived from it and the step, so that a resumed run
        draws what an uninterrupted one draws.
        """
        step_key = jax.random.fold_in(key, state.step)
        total, divisor, gradients = self._gradients(state.trained, frozen, batch, step_key)
        # A batch without a target token has no gradient.
        divisor = jnp.maximum(divisor, 1.0)
        gradients = jax.tree.map(lambda g: g / divisor, gradients)
        updates, optimizer = self.optimizer.update(gradients, state.optimizer, state.trained)
        trained = optax.apply_updates(state.trained, updates)
        metrics = {"loss": total / divisor, "gradient_norm": optax.global_norm(gradients)}
        return TrainState(state.step + 1, trained, optimizer), metrics

    def _gradients(self, trained, frozen, batch, key):
        def total(trained, batch, key):
            dropout, routing = jax.random.split(key)
            logits = self.model.apply(
                {"params": merge(frozen, trained)},
                batch["encoder_input_tokens"],
                batch["decoder_input_tokens"],
                batch["task_ids"],
                rngs={"dropout": dropout, "routing": routing},
            )
            assert isinstance(logits, jax.Array)
            weights = batch["decoder_loss_weights"].astype(jnp.float32)
            loss = self.loss.total(logits, batch["decoder_target_tokens"], weights)
            return loss, self.loss.divisor(weights)

        gradient = jax.value_and_grad(total, has_aux=True)
        if self.microbatches == 1:
            (loss, divisor), gradients = gradient(trained, batch, key)
            return loss, divisor, gradients

        def add(sums, part):
            (loss, divisor), gradients = gradient(trained, part, jax.random.fold_in(key, part["number"]))
            return jax.tree.map(jnp.add, sums, (loss, divisor, gradients)), None

        # Row i goes to part i % microbatches: each device's rows stay its own.
        parts = jax.tree.map(
            lambda x: x.reshape(-1, self.microbatches, *x.shape[1:]).swapaxes(0, 1), dict(batch)
        )
        parts["number"] = jnp.arange(self.microbatches)
        zeros = (jnp.zeros(()), jnp.zeros(()), jax.tree.map(jnp.zeros_like, trained))
        return jax.lax.scan(add, zeros, parts)[0]
