"""One training step: a gradient step on the trained tree, while the frozen tree stays as it is."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, PRNGKeyArray

from poly_jax.model.joint_routing import JOINT, Places, joint_routers, joint_tables, joint_weights
from poly_jax.model.loss import Loss
from poly_jax.model.transformer import Transformer
from poly_jax.training.ibp_prior import IBPPrior
from poly_jax.weights.tree import merge

Batch = dict[str, Any]


@flax.struct.dataclass
class TrainState:
    """The values that a training step changes.

    Attributes:
      step: number of steps taken.
      trained: the parameters that are trained, without the frozen ones.
      optimizer: the optimizer's state for these parameters.
    """

    step: Int[Array, ""]
    trained: dict[str, Any]
    optimizer: optax.OptState


def start(trained: dict[str, Any], optimizer: optax.GradientTransformation) -> TrainState:
    """Make the state before the first step."""
    return TrainState(jnp.zeros((), jnp.int32), trained, optimizer.init(trained))


@dataclasses.dataclass(frozen=True)
class Update:
    """A pure step function; jit it, or vmap it over states to train several at once on one frozen tree.

    Attributes:
      model: the network, in training mode.
      loss: the objective that the step minimises.
      optimizer: the gradient transformation for the trained tree. It may take `gradient_norm`, the global
        norm of the gradients, as an extra argument.
      microbatches: number of parts that a batch is split into; their gradients are added before the
        optimizer's step.
      prior: a loss on the routers that each step adds once, with its weight; None for no such loss.
      joined: the function that makes the model's parameters of the frozen and the trained tree.
      packed: the routers whose parameters the trained tree holds packed
        (`poly_jax.training.packed_routers`); empty where each has its own.
    """

    model: Transformer
    loss: Loss
    optimizer: optax.GradientTransformation
    microbatches: int = 1
    prior: IBPPrior | None = None
    joined: Callable[[dict[str, Any], dict[str, Any]], dict[str, Any]] = merge
    packed: tuple[str, ...] = ()

    def __call__(
        self,
        state: TrainState,
        frozen: dict[str, Any],
        batch: Batch,
        key: PRNGKeyArray,
        places: Places | None = None,
    ) -> tuple[TrainState, dict[str, Float[Array, ""]]]:
        """Return the next state, and the metrics of `gradients`, which takes the same arguments."""
        gradients, metrics = self.gradients(state, frozen, batch, key, places)
        return self.after(state, gradients, metrics["gradient_norm"]), metrics

    def gradients(
        self,
        state: TrainState,
        frozen: dict[str, Any],
        batch: Batch,
        key: PRNGKeyArray,
        places: Places | None = None,
    ) -> tuple[dict[str, Any], dict[str, Float[Array, ""]]]:
        """Return the gradients of a step, and its `loss` and `gradient_norm` (before clipping).

        A loss with several terms also reports each term by name. A prior is reported as `prior`, without its
        weight, and is not part of `loss`. `key` is the key of the whole run. The random numbers of a step are
        derived from it and the step's number, so a resumed run draws the same ones as an uninterrupted run.
        `places` are those of the routers whose weights are computed together (`places_of`), where they are
        arguments of the program.
        """
        step_key = jax.random.fold_in(key, state.step)
        loss, terms, gradients = self._gradients(state.trained, frozen, batch, step_key, places)
        if self.prior is not None:
            weight = self.prior.weight
            prior, slope = jax.value_and_grad(self.prior)(state.trained)
            gradients = jax.tree.map(lambda g, s: g + weight * s, gradients, slope)
        metrics = {"loss": loss, "gradient_norm": optax.global_norm(gradients)}
        metrics |= terms if len(terms) > 1 else {}
        metrics |= {"prior": prior} if self.prior is not None else {}
        return gradients, metrics

    def after(
        self, state: TrainState, gradients: dict[str, Any], gradient_norm: Float[Array, ""]
    ) -> TrainState:
        """Return the state after a step with these gradients, whose global norm is known."""
        optimizer = optax.with_extra_args_support(self.optimizer)
        updates, optimizer_state = optimizer.update(
            gradients, state.optimizer, state.trained, gradient_norm=gradient_norm
        )
        return TrainState(state.step + 1, optax.apply_updates(state.trained, updates), optimizer_state)

    def joint_routers(self, parameters: dict[str, Any]) -> tuple[str, ...]:
        """Return the routers whose weights a pass computes together; only the parameters' names are read."""
        if self.packed:
            return self.packed
        model = self.model
        # With answer choices, the decoder has a row for each choice, and the encoder one for each example.
        if model.adapters is None or not model.train or self.loss.needs_choices:
            return ()
        return joint_routers(model.adapters, model.config, parameters)

    def _joint_weights(self, parameters, task_ids, key, places):
        adapters, routers = self.model.adapters, self.joint_routers(parameters)
        if adapters is None or not routers:
            return {}
        tables = joint_tables(adapters, routers, parameters, places)
        return joint_weights(adapters, routers, tables, task_ids, key, places)

    def _gradients(self, trained, frozen, batch, key, places):
        # A batch without target tokens has no gradient.
        divisors = jax.tree.map(lambda divisor: jnp.maximum(divisor, 1.0), self.loss.divisors(batch))

        def mean(trained, batch, key):
            dropout, routing = jax.random.split(key)
            parameters, rngs = self.joined(frozen, trained), {"dropout": dropout, "routing": routing}
            weights = self._joint_weights(parameters, batch["task_ids"], routing, places)
            variables = {"params": parameters, JOINT: weights}
            totals = self.loss.totals(functools.partial(self.model.apply, variables, rngs=rngs), batch)
            terms = {name: total / divisors[name] for name, total in totals.items()}
            return sum(terms.values()), terms

        gradient = jax.value_and_grad(mean, has_aux=True)
        if self.microbatches == 1:
            (loss, terms), gradients = gradient(trained, batch, key)
            return loss, terms, gradients

        def add(sums, part):
            (loss, terms), gradients = gradient(trained, part, jax.random.fold_in(key, part["number"]))
            return jax.tree.map(jnp.add, sums, (loss, terms, gradients)), None

        # Row i goes to part i % microbatches, so no row moves to another device.
        parts = jax.tree.map(
            lambda x: x.reshape(-1, self.microbatches, *x.shape[1:]).swapaxes(0, 1), dict(batch)
        )
        parts["number"] = jnp.arange(self.microbatches)
        zeros = jax.tree.map(jnp.zeros_like, (jnp.zeros(()), divisors, trained))
        return jax.lax.scan(add, zeros, parts)[0]
