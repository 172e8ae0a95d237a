"""The step of a run as a compiled program."""

import dataclasses
import functools
from typing import Any

import jax
import numpy as np
from jax.sharding import NamedSharding
from jaxtyping import Array, Int, PRNGKeyArray

from poly_jax.fixed import kept_for
from poly_jax.model.joint_routing import Places, places_of
from poly_jax.training.finite_steps import FiniteSteps, NonFinite
from poly_jax.training.update import Batch, TrainState, Update
from poly_jax.weights.tree import merge


@dataclasses.dataclass(frozen=True)
class CompiledStep:
    """A compiled step, with the arguments and results of `FiniteSteps`.

    Attributes:
      step: the compiled `FiniteSteps`.
      places: the places of the routers whose weights are computed together.
    """

    step: Any
    places: Places

    def __call__(
        self,
        state: TrainState,
        frozen: dict[str, Any],
        batch: Batch,
        key: PRNGKeyArray,
        number: int | np.integer | Int[Array, ""],
    ) -> tuple[TrainState, dict[str, Any]]:
        """Take the step. The state is donated: the new state is written into the memory of the old one."""
        return self.step(state, frozen, batch, key, number, self.places)

    def trace(
        self, state: TrainState, frozen: dict[str, Any], batch: Batch, key: Any, number: Any
    ) -> jax.stages.Traced:
        """Trace the step's program for these arguments, or for their shapes and shardings."""
        return self.step.trace(state, frozen, batch, key, number, self.places)


def compiled_step(
    update: Update, non_finite: NonFinite, state: TrainState, frozen: dict[str, Any]
) -> CompiledStep:
    """Compile the step of a run when it is first called.

    The next run of an equal step, as of another seed or task, takes its program from the one before, unless a
    part of the step can change in between: a loss, skill or router that is no frozen dataclass. The program
    of one step is kept, because it takes memory on the devices.

    Args:
      update: the step.
      non_finite: event that follows a step whose numbers are not finite.
      state: the first state, or its shapes and shardings. Each later state has the same shardings.
      frozen: the frozen tree, or its shapes.
    """
    leaves, form = jax.tree.flatten(jax.tree.map(lambda leaf: leaf.sharding, state))
    program = kept_for(_program, update.loss, update.prior, update.model.config, update.model.adapters)
    step = program(update, non_finite, tuple(leaves), form)
    return CompiledStep(step, places_of(update.joint_routers(merge(frozen, state.trained))))


@functools.lru_cache(maxsize=1)
def _program(update: Update, non_finite: NonFinite, shardings: tuple[NamedSharding, ...], form: Any) -> Any:
    return jax.jit(
        FiniteSteps(update, non_finite),
        donate_argnums=0,
        out_shardings=(jax.tree.unflatten(form, shardings), None),
    )
