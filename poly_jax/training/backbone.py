"""Loads frozen weights onto the mesh."""

from collections.abc import Iterable
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import PRNGKeyArray
from numpy.typing import DTypeLike

from poly_jax.model.transformer import Transformer, init_parameters, parameter_shapes
from poly_jax.training.memory import check_memory
from poly_jax.training.mesh import put, shardings
from poly_jax.weights.backbone import open_backbone
from poly_jax.weights.content_hash import ContentHash
from poly_jax.weights.layer_trees import stack_layers
from poly_jax.weights.t5_shapes import t5_parameter_shapes
from poly_jax.weights.tree import check_tree, flatten, unflatten

Tree = dict[str, Any]

RANDOM = "random"
"""This word in place of a path stands for untrained weights, which are the same every time."""


def load_backbone(
    path: str, model: Transformer, mesh: Mesh, dtype: DTypeLike | None = None
) -> tuple[Tree, str]:
    """Load a backbone's parameters onto the mesh, in the model's layout, and hash their contents.

    Args:
      path: path for `poly_jax.weights.backbone.open_backbone`, or `RANDOM` for trials without weights.
      model: the model that the backbone is for; its adapters do not matter.
      mesh: the mesh that the parameters go to.
      dtype: the dtype of the parameters; None for the dtype of the model's activations.

    Returns:
      The parameters as a nested dictionary, and their content hash (see `ContentHash`). The hash of `RANDOM`
      is `RANDOM`.

    Raises:
      UserError: `path` is not a checkpoint that can be read, or its parameters do not fit this model.
    """
    dtype = dtype or model.config.activation_dtype
    bare = Transformer(model.config)
    if path == RANDOM:
        shapes, axes = parameter_shapes(bare)
        places = shardings(shapes, axes, mesh)
        check_memory(jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, dtype), shapes), places)
        return _draw(bare, places, dtype), RANDOM
    backbone = open_backbone(path)
    # The backbone is checked before the model is traced, because tracing an absurd configuration takes long.
    check_tree(t5_parameter_shapes(model.config), backbone.tensors, path)
    shapes, axes = parameter_shapes(bare)
    places = shardings(shapes, axes, mesh)
    layers = _layers(backbone.tensors) if model.config.scan_layers else {}
    whole, sharding = flatten(shapes), flatten(places)
    contents, placed, stacks = ContentHash(), {}, {}
    # Each array is put on the mesh before the next is read: a host never holds all arrays, or two copies.
    for name, array in backbone.read_each(dtype):
        contents.add(name, array)
        if name not in layers:
            placed[name] = put(array, sharding[name]).block_until_ready()
            continue
        stack, number = layers[name]
        if stack not in stacks:
            stacks[stack] = np.empty(whole[stack].shape, array.dtype)
        stacks[stack][number] = array
    for name in tuple(stacks):
        placed[name] = put(stacks.pop(name), sharding[name]).block_until_ready()
    return unflatten(placed), contents.hexdigest()


def _layers(names: Iterable[str]) -> dict[str, tuple[str, int]]:
    """Map the name of each layer's parameter to its stack and its index in the stack."""
    stacks = flatten(stack_layers(unflatten({name: name for name in names}), tuple))
    return {
        layer: (stack, number)
        for stack, layers in stacks.items()
        if isinstance(layers, tuple)
        for number, layer in enumerate(layers)
    }


def _draw(bare: Transformer, places: Tree, dtype: DTypeLike) -> Tree:
    def draw(key: PRNGKeyArray) -> Tree:
        return jax.tree.map(lambda leaf: leaf.astype(dtype), init_parameters(bare, key)[0])

    return jax.jit(draw, out_shardings=places)(jax.random.key(0))
