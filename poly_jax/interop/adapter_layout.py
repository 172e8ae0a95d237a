"""Skills and routers that were read, in the layout of the model that they are for."""

from typing import Any

from poly_jax.interop.tree import check_tree
from poly_jax.model.layer_trees import stack_layers
from poly_jax.model.transformer import Transformer, parameter_shapes
from poly_jax.training.partition import is_adapter, split


def lay_out(tree: dict[str, Any], model: Transformer, source: object) -> dict[str, Any]:
    """The tree with its layers as the model has them: apart, or stacked where it scans them.

    Args:
      tree: with layers apart.
      model: with the adapters.
      source: where the tree came from, for the message.

    Raises:
      UserError: the tree is not of the model's adapters; see `check_tree`.
    """
    if model.config.scan_layers:
        tree = stack_layers(tree)
    check_tree(split(parameter_shapes(model)[0], is_adapter)[0], tree, source)
    return tree
