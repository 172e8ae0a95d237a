"""Steps that keep the state as it was where their loss or their gradient is not finite."""

import dataclasses
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from poly_jax.model.joint_routing import Places
from poly_jax.training.update import Batch, TrainState, Update

NonFinite = Literal["stop", "skip"]
"""The event that follows a step whose numbers are not finite: the end of the run, or the next step."""

FINITE = "finite"
"""The metric that says whether a step was taken."""


@dataclasses.dataclass(frozen=True)
class FiniteSteps:
    """An update that leaves the state as it is where its numbers are not finite; pure, as `Update` is.

    Finite gradients make finite parameters and moments, unless an absurd learning rate makes the parameters
    overflow: then the next loss is not finite, and no checkpoint takes such a state (`checksums`). The new
    state is not looked at here, because XLA then computes the whole of it before it writes any, and compiles
    one and a half times as long for it.

    Attributes:
      update: the step.
      non_finite: with "stop", no later step changes the state either, so that `state.step` is the number of
        the last finite step. With "skip", the step counts as taken, and the next one may change the state.
    """

    update: Update
    non_finite: NonFinite = "stop"

    def __call__(
        self,
        state: TrainState,
        frozen: dict[str, Any],
        batch: Batch,
        key: PRNGKeyArray,
        number: Int[Array, ""],
        places: Places | None = None,
    ) -> tuple[TrainState, dict[str, Float[Array, ""] | Bool[Array, ""]]]:
        """Return the next state and the update's metrics, with `finite` added.

        Args:
          state: the state before the step.
          frozen: as in `Update`.
          batch: as in `Update`.
          key: as in `Update`.
          number: the number of the step, from 1.
          places: as in `Update`.
        """
        gradients, metrics = self.update.gradients(state, frozen, batch, key, places)
        finite = jnp.isfinite(metrics["loss"]) & jnp.isfinite(metrics["gradient_norm"])
        taken = finite
        if self.non_finite == "stop":
            taken &= state.step == number - 1
        # A choice array by array would read each new array and the old one, and XLA would copy the old
        # moments before it overwrites them.
        kept = jax.lax.cond(
            taken, self.update.after, lambda state, *_: state, state, gradients, metrics["gradient_norm"]
        )
        if self.non_finite == "skip":
            kept = dataclasses.replace(kept, step=state.step + 1)
        return kept, {**metrics, FINITE: finite}
