"""Shrinks parameters to 0 over the last steps, so that routers end with equal weights for all tasks."""

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
    """Return the fraction of a parameter that is left after a step: a half cosine to 0 over `last` steps."""
    done = jnp.clip((step - (steps - last)) / last, 0.0, 1.0)
    return 0.5 * (1.0 + jnp.cos(jnp.pi * done))


def anneal_to_zero(steps: int, last: int) -> optax.GradientTransformation:
    """Make a transformation that applies a rule's updates and shrinks parameters to 0 over the last steps.

    A parameter without a gradient is `remaining(step)` times its initial value. After the last step it is
    exactly 0.
    """
    last = min(last, steps)

    def init(params: optax.Params) -> _State:
        return _State(jnp.zeros((), jnp.int32))

    def update(
        updates: optax.Updates, state: _State, params: optax.Params | None = None
    ) -> tuple[optax.Updates, _State]:
        before, after = remaining(state.step, steps, last), remaining(state.step + 1, steps, last)
        # The cosine of pi in float32 is not exactly -1, so a small remainder would be left.
        ratio = jnp.where(state.step + 1 >= steps, 0.0, after / jnp.where(before > 0, before, 1.0))
        shrunk = jax.tree.map(lambda u, p: ratio * (p + u) - p, updates, params)
        return shrunk, _State(state.step + 1)

    return optax.GradientTransformation(init, update)


def check_uniform_at_zero(adapters: Adapters | None) -> None:
    """Raise a UserError unless the router's weights are equal where its logits are 0."""
    if adapters is None:
        return
    router, sizes = adapters.router, dataclasses.replace(adapters.sizes, n_tasks=1)
    specs = router.parameters(sizes)
    zeros = {name: jnp.zeros(spec.shape) for name, spec in specs.items()}
    task = jnp.zeros((1,), jnp.int32)
    if not specs or not jnp.allclose(router.weights(zeros, task, sizes, None), 1 / sizes.n_skills):
        raise UserError(
            "train.router_anneal_steps needs a router whose weights are equal where its logits are 0, and"
            f" the weights of {type(router).__name__} with its settings are not; use LearnedRouter.scores"
            " 'sigmoid' or 'softmax' without a shared skill"
        )
