"""The step of a run as compiled programs: one draws the numbers of routers, the other takes the step."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.sharding import NamedSharding
from jaxtyping import Array, Int, PRNGKeyArray

from poly_jax.fixed import kept_for
from poly_jax.model.routing_noise import draw_places, noise_axes
from poly_jax.training.finite_steps import FiniteSteps, NonFinite
from poly_jax.training.update import Batch, TrainState, Update
from poly_jax.weights.sharding import mesh_axes, rules_for
from poly_jax.weights.tree import merge


@dataclasses.dataclass(frozen=True)
class CompiledStep:
    """A compiled step, with the arguments and results of `FiniteSteps`.

    The draws of routers are arguments of the step's program. Inside it each router would cut its own part out
    of them, and XLA would compile as many different kernels as there are routers.

    Attributes:
      draw: the compiled method `Update.noise` of the routers that draw together; None where the step draws
        inside.
      step: the compiled `FiniteSteps`.
    """

    draw: Callable[..., dict[str, Any]] | None
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
        return self.step(state, frozen, batch, key, number, self._noise(state, batch, key))

    def trace(
        self, state: TrainState, frozen: dict[str, Any], batch: Batch, key: Any, number: Any
    ) -> jax.stages.Traced:
        """Trace the step's program for these arguments, or for their shapes and shardings."""
        return self.step.trace(state, frozen, batch, key, number, self._noise(state, batch, key))

    def _noise(self, state: TrainState, batch: Batch, key: Any) -> dict[str, Any] | None:
        if self.draw is None:
            return None
        arguments = batch["task_ids"], state.step, key
        if isinstance(state.step, jax.Array):
            return self.draw(*arguments)
        return _placed(jax.eval_shape(self.draw, *arguments), batch, state.step.sharding)


def compiled_step(
    update: Update, non_finite: NonFinite, state: TrainState, frozen: dict[str, Any]
) -> CompiledStep:
    """Compile the step of a run when it is first called.

    The next run of an equal step, as of another seed or task, takes its programs from the one before, unless
    a part of the step can change in between: a loss, skill or router that is no frozen dataclass. The
    programs of one step are kept, because they take memory on the devices.

    Args:
      update: the step.
      non_finite: event that follows a step whose numbers are not finite.
      state: the first state, or its shapes and shardings. Each later state has the same shardings.
      frozen: the frozen tree, or its shapes.
    """
    leaves, form = jax.tree.flatten(jax.tree.map(lambda leaf: leaf.sharding, state))
    programs = kept_for(_programs, update.loss, update.prior, update.model.config, update.model.adapters)
    draw, step = programs(update, non_finite, tuple(leaves), form)
    # Each microbatch has a key of its own.
    routers = update.drawing_routers(merge(frozen, state.trained)) if update.microbatches == 1 else ()
    adapters = update.model.adapters
    if not routers or adapters is None:
        return CompiledStep(None, step)
    return CompiledStep(functools.partial(draw, routers, draw_places(adapters, routers)), step)


@functools.lru_cache(maxsize=1)
def _programs(
    update: Update, non_finite: NonFinite, shardings: tuple[NamedSharding, ...], form: Any
) -> tuple[Callable[..., dict[str, Any]], Any]:
    step = jax.jit(
        FiniteSteps(update, non_finite),
        donate_argnums=0,
        out_shardings=(jax.tree.unflatten(form, shardings), None),
    )
    return jax.jit(update.noise, static_argnums=0), step


def _placed(noise: dict[str, Any], batch: Batch, like: NamedSharding) -> dict[str, Any]:
    """The shapes of draws, with their shardings on the mesh of another array."""
    names = noise_axes(batch["task_ids"].ndim)

    def placed(leaf: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
        spec = mesh_axes(leaf.shape, names, rules_for(names), like.mesh.shape)
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=NamedSharding(like.mesh, spec))

    return jax.tree.map(placed, noise)
