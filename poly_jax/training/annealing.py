"""Parameters that shrink to 0 over the last steps: routers that end with equal weights for all tasks."""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int

from poly_jax.adapters.config import Adapters
from poly_jax.errors import UserError


class _State(NamedTuple):
    step: Int[Array, ""]


def remaining(step: Int[Array, ""] | int, steps: int, last: int) -> Float[Array, ""]:
    """What is left of a parameter after `step` of `steps` steps: over the `last` ones half a cosine to 0."""
    done = jnp.clip((step - (steps - last)) / last, 0.0, 1.0)
    return 0.5 * (1.0 + jnp.cos(jnp.pi * done))


def anneal_to_zero(steps: int, last: int) -> optax.GradientTransformation:
    """After a rule's own updates: multiplies the parameters so that over the last steps they shrink to 0.

    A parameter without gradient is `remaining(step)` times what it was; after the last step it is exactly 0.
    """
    last = min(last, steps)

    def init(params: optax.Params) -> _State:
        return _State(jnp.zeros((), jnp.int32))

    def update(
        updates: optax.Updates, state: _State, params: optax.Params | None = None
    ) -> tuple[optax.Updates, _State]:
        before, after = remaining(state.step, steps, last), remaining(state.step + 1, steps, last)
        # The cosine of float32's pi leaves a trace where nothing shall be left.
        ratio = jnp.where(state.step + 1 >= steps, 0.0, after / jnp.where(before > 0, before, 1.0))
        shrunk = jax.tree.map(lambda u, p: ratio * (p + u) - p, updates, params)
        return shrunk, _State(state.step + 1)

    return optax.GradientTransformation(init, update)


def check_uniform_at_zero(adapters: Adapters | None) -> None:
    """Raises a UserError where a router's weights are not equal once its logits are 0."""
    if adapters is None:
        return
    router, sizes = adapters.router, dataclasses.replace(adapters.sizes, n_tasks=1)
    specs = router.parameters(sizes)
    zeros = {name: jnp.zeros(spec.shape) for name, spec in specs.items()}
    weights = router.weights(zeros, jnp.zeros((1,), jnp.int32), sizes, None)
    if not specs or not jnp.allclose(weights, 1 / sizes.n_skills):
        raise UserError(
            f"train.router_anneal_steps needs a router whose weights are equal at logits of 0, and"
            f" {type(router).__name__} as it is set has none; use LearnedRouter.scores 'sigmoid' or 'softmax'"
            " without a shared skill"
        )
