"""The step of a run as compiled programs: one draws the numbers of routers, the other takes the step."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.sharding import NamedSharding
from jaxtyping import Array, Int, PRNGKeyArray

from poly_jax.model.routing_noise import noise_axes
from poly_jax.training.finite_steps import FiniteSteps, NonFinite
from poly_jax.training.update import Batch, TrainState, Update
from poly_jax.weights.sharding import mesh_axes, rules_for


@dataclasses.dataclass(frozen=True)
class CompiledStep:
    """A compiled step, with the arguments and results of `FiniteSteps`.

    The draws of routers are arguments of the step's program. Inside it each router would cut its own part out
    of them, and XLA would compile as many different kernels as there are routers.

    Attributes:
      draw: the compiled method `Update.noise`.
      step: the compiled `FiniteSteps`.
    """

    draw: Callable[..., dict[str, Any] | None]
    step: Any

    def __call__(
        self,
        state: TrainState,
        frozen: dict[str, Any],
        batch: Batch,
        key: PRNGKeyArray,
        number: int | np.integer | Int[Array, ""],
    ) -> tuple[TrainState, dict[str, Any]]:
        """Take the step. The state is donated: the new state is written into the memory of the old one."""
        noise = self.draw(state, frozen, batch, key)
        return self.step(state, frozen, batch, key, number, noise)

    def trace(
        self, state: TrainState, frozen: dict[str, Any], batch: Batch, key: Any, number: Any
    ) -> jax.stages.Traced:
        """Trace the step's program for these arguments, or for their shapes and shardings."""
        if isinstance(state.step, jax.Array):
            noise = self.draw(state, frozen, batch, key)
        else:
            noise = _placed(jax.eval_shape(self.draw, state, frozen, batch, key), batch, state.step.sharding)
        return self.step.trace(state, frozen, batch, key, number, noise)


def compiled_step(update: Update, non_finite: NonFinite, state: TrainState) -> CompiledStep:
    """Compile the step of a run when it is first called.

    Args:
      update: the step.
      non_finite: event that follows a step whose numbers are not finite.
      state: the first state, or its shapes and shardings. Each later state has the same shardings.
    """
    step = jax.jit(
        FiniteSteps(update, non_finite),
        donate_argnums=0,
        out_shardings=(jax.tree.map(lambda leaf: leaf.sharding, state), None),
    )
    return CompiledStep(jax.jit(update.noise), step)


def _placed(noise: dict[str, Any] | None, batch: Batch, like: NamedSharding) -> dict[str, Any] | None:
    """The shapes of draws, with their shardings on the mesh of another array."""
    names = noise_axes(batch["task_ids"].ndim)

    def placed(leaf: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
        spec = mesh_axes(leaf.shape, names, rules_for(names), like.mesh.shape)
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=NamedSharding(like.mesh, spec))

    return jax.tree.map(placed, noise)
