"""The step of a run as one compiled program."""

from typing import Any

import jax

from poly_jax.training.finite_steps import FiniteSteps, NonFinite
from poly_jax.training.update import TrainState, Update


def compiled_step(update: Update, non_finite: NonFinite, state: TrainState) -> Any:
    """Return the jitted step, with the arguments and results of `FiniteSteps`.

    Args:
      update: the step.
      non_finite: event that follows a step whose numbers are not finite.
      state: the first state, or its shapes and shardings. Each later state has the same shardings.
    """
    # The state is donated: a step writes the new state into the memory of the old one.
    return jax.jit(
        FiniteSteps(update, non_finite),
        donate_argnums=0,
        out_shardings=(jax.tree.map(lambda leaf: leaf.sharding, state), None),
    )
