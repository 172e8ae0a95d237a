"""Converts between trees with one subtree per layer and trees with layers stacked on a leading axis."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np

from poly_jax.weights.parameter_names import STACKED, layer_number, numbered_layer


def _stack(leaves: list[Any]) -> Any:
    return np.stack(leaves) if isinstance(leaves[0], np.ndarray) else jnp.stack(leaves)


def stack_layers(tree: dict[str, Any], stack: Callable[[list[Any]], Any] = _stack) -> dict[str, Any]:
    """Stack `layers_0`, `layers_1`, ... in one `layers`, whose leaves have a leading layer axis.

    All other subtrees are kept; a tree without numbered layers is returned unchanged.
    """
    result, layers = {}, {}
    for name, child in tree.items():
        number = layer_number(name)
        if number is not None:
            layers[number] = child
        else:
            result[name] = stack_layers(child, stack) if isinstance(child, dict) else child
    if layers:
        result[STACKED] = _zip_trees([layers[i] for i in sorted(layers)], stack)
    return result


def _zip_trees(trees: list[Any], stack: Callable[[list[Any]], Any]) -> Any:
    if not isinstance(trees[0], dict):
        return stack(trees)
    return {name: _zip_trees([tree[name] for tree in trees], stack) for name in trees[0]}


def unstack_layers(tree: dict[str, Any]) -> dict[str, Any]:
    """Invert `stack_layers`: split `layers` with a leading layer axis into `layers_0`, `layers_1`, ..."""
    result: dict[str, Any] = {}
    for name, child in tree.items():
        if name == STACKED:
            for i in range(_depth(child)):
                result[numbered_layer(i)] = _index(child, i)
        else:
            result[name] = unstack_layers(child) if isinstance(child, dict) else child
    return result


def _depth(tree: Any) -> int:
    while isinstance(tree, dict):
        tree = next(iter(tree.values()))
    return tree.shape[0]


def _index(tree: Any, i: int) -> Any:
    return {k: _index(v, i) for k, v in tree.items()} if isinstance(tree, dict) else tree[i]
