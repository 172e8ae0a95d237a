"""An optimizer that leaves some parameters as they are, for adaptations that train different ones."""

from typing import Any

import jax
import jax.numpy as jnp
import optax


def only(optimizer: optax.GradientTransformation, trained: Any) -> optax.GradientTransformationExtraArgs:
    """An optimizer that does with the trained parameters what it would do if there were no others.

    The others have no gradient, also not in the norm by which gradients are clipped, and do not decay.

    Args:
      optimizer: the optimizer. What it does with one parameter may depend on others through that norm alone.
      trained: whether each parameter is trained, as a tree of booleans, which may be traced.
    """
    inner = optax.with_extra_args_support(optimizer)

    def chosen(tree: Any) -> Any:
        return jax.tree.map(lambda leaf, here: jnp.where(here, leaf, jnp.zeros_like(leaf)), tree, trained)

    def update(gradients, state, params=None, **_):
        own = chosen(gradients)
        updates, state = inner.update(own, state, params, gradient_norm=optax.global_norm(own))
        return chosen(updates), state

    return optax.GradientTransformationExtraArgs(inner.init, update)
