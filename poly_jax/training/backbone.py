"""Loading frozen weights onto the mesh, and the hash that tells one backbone from another."""

import hashlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util
from jax.sharding import Mesh
from numpy.typing import DTypeLike

from poly_jax.interop.backbone import check_tree, read_backbone
from poly_jax.interop.tree import cast
from poly_jax.model.layer_trees import stack_layers
from poly_jax.model.transformer import Transformer, parameter_shapes
from poly_jax.training.mesh import shardings

Tree = dict[str, Any]


def load_backbone(
    path: str, model: Transformer, mesh: Mesh, dtype: DTypeLike | None = None
) -> tuple[Tree, str]:
    """The backbone's parameters on the mesh, in the model's layout, and their content hash.

    Args:
      path: see `poly_jax.interop.backbone.read_backbone`.
      model: whose backbone it is.
      mesh: where the parameters go.
      dtype: of the parameters; None for that of the model's activations.

    Raises:
      UserError: nothing readable at `path`, or its parameters are not this model's.
    """
    tree = read_backbone(path, dtype=dtype or model.config.activation_dtype)
    digest = content_hash(tree)
    if model.config.scan_layers:
        tree = stack_layers(tree)
    shapes, axes = parameter_shapes(Transformer(model.config))
    check_tree(shapes, tree, path)
    return jax.device_put(tree, shardings(shapes, axes, mesh)), digest


def content_hash(tree: Tree) -> str:
    """SHA-256 over names and contents of a tree of host arrays, in the order of names.

    Floats are rounded to bfloat16 first, so that a backbone read in float32 is the one read in bfloat16.
    """
    digest = hashlib.sha256()
    for name, leaf in sorted(traverse_util.flatten_dict(tree, sep="/").items()):
        leaf = cast(leaf, jnp.bfloat16)
        digest.update(f"{name} {leaf.shape};".encode())
        digest.update(np.ascontiguousarray(leaf).view(np.uint8).data)
    return digest.hexdigest()
