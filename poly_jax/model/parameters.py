"""The parameters of a model: drawn from a key, and their shapes and axis names without drawing them."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax.core import unfreeze
from flax.linen import partitioning
from jaxtyping import PRNGKeyArray

from poly_jax.fixed import kept_for
from poly_jax.model.transformer import Transformer
from poly_jax.weights.tree import flatten, unflatten


def init_parameters(model: Transformer, key: PRNGKeyArray) -> tuple[dict, dict]:
    """Fresh parameters of a model, and the logical axis names of each.

    Returns two nested dicts of one structure: arrays, and `PartitionSpec`s of logical axis names.
    """
    keys = dict(zip(("params", "dropout", "routing"), jax.random.split(key, 3), strict=True))
    tokens = jnp.ones((1, 1), jnp.int32)
    variables = model.init(keys, tokens, tokens, jnp.zeros((1,), jnp.int32))
    axes = partitioning.get_axis_names(variables["params_axes"])
    return unfreeze(variables["params"]), unfreeze(axes)


def parameter_shapes(model: Transformer) -> tuple[dict, dict]:
    """Shape and dtype of every parameter, and its logical axis names; nothing is allocated."""
    shapes, axes = kept_for(_shapes_and_axes, model.config, model.adapters)(model)
    return unflatten(shapes), unflatten(axes)


@functools.lru_cache(maxsize=4)
def _shapes_and_axes(model: Transformer) -> tuple[dict, dict]:
    # A run asks several times, and each time all layers are traced.
    draw, axes = drawing(model)
    return flatten(jax.eval_shape(draw, jax.random.key(0))), flatten(axes)


def drawing(model: Transformer) -> tuple[Callable[[PRNGKeyArray], dict], dict]:
    """A function that draws the parameters from a key, and a dict that it fills with their axis names."""
    axes: dict = {}

    def draw(key: PRNGKeyArray) -> dict:
        parameters, names = init_parameters(model, key)
        axes.update(names)
        return parameters

    return draw, axes
