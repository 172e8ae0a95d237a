"""This project's optimizers for t5x's trainer, which only update the trained parameters."""

from typing import Any

import optax
from flax import core
from t5x import optimizers, utils

from poly_jax import configuration
from poly_jax.training.optimizer import Optimizer, like_parameters
from poly_jax.weights.parameter_names import Trainable, selects
from poly_jax.weights.tree import merge, split

Tree = Any


class TrainedOnly(optimizers.OptaxWrapper):
    """An optax optimizer of the selected parameters; all other parameters have no state and never change."""

    def __init__(self, transformation: optax.GradientTransformation, trainable: Trainable) -> None:
        """Wrap a transformation of the trained parameters only, as in `poly_jax.training.update`."""
        super().__init__(transformation)
        self._trained = selects(trainable)

    def init_state(self, params: Tree) -> optimizers.OptimizerState:
        """Make the state before the first step."""
        return super().init_state(self._split(params)[0])

    def apply_gradient(
        self, hyper_params: Any, params: Tree, state: optimizers.OptimizerState, grads: Tree
    ) -> tuple[Tree, optimizers.OptimizerState]:
        """Return the next parameters and state."""
        trained, frozen = self._split(params)
        new, state = super().apply_gradient(hyper_params, trained, state, self._split(grads)[0])
        merged = merge(frozen, new)
        return core.freeze(merged) if isinstance(params, core.FrozenDict) else merged, state

    def derive_logical_axes(
        self, optimizer: optimizers.Optimizer, param_logical_axes: Tree
    ) -> optimizers.Optimizer:
        """Return the optimizer with names of axes in place of arrays; moments have their parameters' axes.

        t5x's own function knows only some of optax's states; this one works for all.
        """
        trained, axes = self._split(optimizer.target)[0], self._split(param_logical_axes)[0]
        states = like_parameters(optimizer.state.param_states, trained, axes, None)
        state = optimizers.OptimizerState(step=None, param_states=states)
        return optimizers.Optimizer(self, state, param_logical_axes)

    def _split(self, tree: Tree) -> tuple[Tree, Tree]:
        return split(core.unfreeze(tree), self._trained)


def trained_only(steps: int, trainable: Trainable = "adapters") -> TrainedOnly:
    """Make the optimizer that t5x's gin files describe as `Optimizer`, for a run of `steps` steps."""
    optimizer = configuration.current().make(Optimizer)
    return TrainedOnly(optimizer.transformation(steps), trainable)


def learning_rate(steps: int) -> utils.LearningRateCallable:
    """Return the learning rate of skills by step, for t5x's reports; `trained_only` applies its own rates."""
    optimizer = configuration.current().make(Optimizer)
    return optimizer.schedule(optimizer.learning_rate, steps)
