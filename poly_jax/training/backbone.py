"""Loads frozen weights onto the mesh."""

import dataclasses
from collections.abc import Iterable
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Float, PRNGKeyArray
from numpy.typing import DTypeLike

from poly_jax.model.config import T5Config
from poly_jax.model.parameters import init_parameters, parameter_shapes
from poly_jax.model.transformer import Transformer
from poly_jax.training.backbone_parts import Layout, read_parts
from poly_jax.training.fresh import draw_parameters
from poly_jax.training.hosts import of_all_hosts, on_every_host
from poly_jax.training.memory import check_memory
from poly_jax.training.mesh import put, shardings
from poly_jax.weights.backbone import Backbone, open_backbone
from poly_jax.weights.content_hash import DIGEST_BYTES, joined_hash, tensor_digest
from poly_jax.weights.layer_trees import stack_layers
from poly_jax.weights.parameter_names import is_adapter_parameter
from poly_jax.weights.quantized import (
    Quantization,
    integer,
    is_quantized,
    kept_dtype,
    quantize,
    scale_name,
)
from poly_jax.weights.shares import even_shares
from poly_jax.weights.t5_shapes import t5_parameter_shapes
from poly_jax.weights.tree import cast, check_tree, flatten, split, unflatten

Tree = dict[str, Any]
# Of NumPy where a backbone is read, and of JAX where it is drawn.
Array = Float[Any, "..."]

RANDOM = "random"
"""This word in place of a path stands for untrained weights, which are the same every time."""


def load_backbone(
    path: str, model: Transformer, mesh: Mesh, dtype: DTypeLike | None = None
) -> tuple[Tree, str]:
    """Load a backbone's parameters onto the mesh, in the model's layout, and hash their contents.

    Each of several hosts reads what its devices hold, and hashes whole tensors of its own share.

    Args:
      path: path for `poly_jax.weights.backbone.open_backbone`, or `RANDOM` for trials without weights.
      model: the model that the backbone is for; its adapters do not matter.
      mesh: the mesh that the parameters go to.
      dtype: the dtype of the parameters; None for the dtype of the model's activations.

    Returns:
      The parameters as a nested dictionary, and their `content_hash`. The hash of `RANDOM` is `RANDOM`.

    Raises:
      UserError: on every host, where `path` is not a checkpoint that each of them can read, or its parameters
        do not fit this model.
    """
    dtype = dtype or model.config.activation_dtype
    if path == RANDOM:
        shapes, axes = _shapes_and_axes(model)
        places = shardings(shapes, axes, mesh)
        kept = {
            name: leaf.update(dtype=kept_dtype(name, leaf.dtype, dtype))
            for name, leaf in flatten(shapes).items()
        }
        check_memory(unflatten(kept), places)
        return _draw(model.config, places, dtype, mesh), RANDOM
    # The backbone is checked before the model is traced, because tracing an absurd configuration takes long.
    backbone = on_every_host(lambda: _checked(path, model.config))
    shapes, axes = _shapes_and_axes(model)
    places = shardings(shapes, axes, mesh)
    layout = Layout(
        _layers(_names(backbone.tensors, model.config)) if model.config.scan_layers else {},
        flatten(shapes),
        flatten(places),
        model.config.quantization,
        dtype,
    )
    if jax.process_count() == 1:
        placed, digests = _read_whole(backbone, layout)
    else:
        placed, digests = on_every_host(lambda: _read_share(backbone, layout))
        digests = _of_all_hosts(digests, sorted(backbone.tensors))
    return unflatten(placed), joined_hash(digests)


def _shapes_and_axes(model: Transformer) -> tuple[Tree, Tree]:
    # A run traces the model with its adapters anyway, and so need not trace it once more without them.
    shapes, axes = (split(tree, is_adapter_parameter)[1] for tree in parameter_shapes(model))
    return shapes, axes


def _checked(path: str, config: T5Config) -> Backbone:
    backbone = open_backbone(path)
    check_tree(t5_parameter_shapes(config), backbone.tensors, path)
    return backbone


def _read_share(backbone: Backbone, layout: Layout) -> tuple[dict[str, jax.Array], dict[str, bytes]]:
    """Put this host's parts of all arrays onto the mesh, and hash its share of the tensors."""
    placed = read_parts(backbone.tensors, layout, backbone.at_once)
    sizes = {name: tensor.nbytes for name, tensor in backbone.tensors.items()}
    own = even_shares(sizes, jax.process_count())[jax.process_index()]
    return placed, {name: tensor_digest(name, array) for name, array in backbone.read_each(names=own)}


def _of_all_hosts(digests: dict[str, bytes], names: list[str]) -> dict[str, bytes]:
    """The digests that the hosts computed, each for its own share of the names."""
    own = np.frombuffer(b"".join(digests.get(name, bytes(DIGEST_BYTES)) for name in names), np.uint8)
    # Each row has zeros in place of the digests of other hosts.
    joined = of_all_hosts(own[None]).max(axis=0).reshape(len(names), DIGEST_BYTES)
    return {name: bytes(digest) for name, digest in zip(names, joined, strict=True)}


def _read_whole(backbone: Backbone, layout: Layout) -> tuple[dict[str, jax.Array], dict[str, bytes]]:
    """Put all arrays onto the mesh while they are hashed."""
    quantization, dtype, places = layout.quantization, layout.dtype, layout.places
    stack_of = {
        layer: (stack, number) for stack, of in layout.layers.items() for number, layer in enumerate(of)
    }
    digests, placed, stacks = {}, {}, {}
    # Each array is put on the mesh before the next is read: a host never holds all arrays, or two copies.
    for read, array in backbone.read_each(None if quantization != "none" else dtype):
        digests[read] = tensor_digest(read, array)
        for name, made in _parts(read, array, quantization, dtype):
            part = np.asarray(made)
            if name not in stack_of:
                placed[name] = put(part, places[name]).block_until_ready()
                continue
            stack, number = stack_of[name]
            if stack not in stacks:
                stacks[stack] = np.empty(layout.shapes[stack].shape, part.dtype)
            stacks[stack][number] = part
    for name in tuple(stacks):
        placed[name] = put(stacks.pop(name), places[name]).block_until_ready()
    return placed, digests


def _layers(names: Iterable[str]) -> dict[str, list[str]]:
    """The names of the layers of each stack, in their order."""
    stacks = flatten(stack_layers(unflatten({name: name for name in names}), tuple))
    return {stack: list(layers) for stack, layers in stacks.items() if isinstance(layers, tuple)}


def _names(names: Iterable[str], config: T5Config) -> list[str]:
    """The names of the model's parameters, given the names in a backbone of floats."""
    if config.quantization == "none":
        return list(names)
    return [*names, *(scale_name(name) for name in names if is_quantized(name))]


def _parts(name: str, array: Array, quantization: Quantization, dtype: DTypeLike) -> list[tuple[str, Array]]:
    """The model's parameters that a backbone's array becomes."""
    if quantization == "none" or not is_quantized(name):
        return [(name, cast(array, dtype))]
    kernel, scale = quantize(array, integer(quantization))
    return [(name, kernel), (scale_name(name), scale)]


def _draw(config: T5Config, places: Tree, dtype: DTypeLike, mesh: Mesh) -> Tree:
    floats = Transformer(dataclasses.replace(config, quantization="none"))

    def draw(key: PRNGKeyArray) -> Tree:
        kept: dict[str, Array] = {}
        for name, leaf in flatten(init_parameters(floats, key)[0]).items():
            kept |= _parts(name, leaf, config.quantization, dtype)
        return unflatten(kept)

    return draw_parameters(draw, 0, places, mesh)
