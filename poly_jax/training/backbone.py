"""Loading frozen weights onto the mesh."""

from typing import Any

import jax
from jax.sharding import Mesh
from jaxtyping import PRNGKeyArray
from numpy.typing import DTypeLike

from poly_jax.interop.backbone import check_tree, read_backbone
from poly_jax.interop.content_hash import content_hash
from poly_jax.interop.tensors import of_tree
from poly_jax.model.layer_trees import stack_layers
from poly_jax.model.transformer import Transformer, init_parameters, parameter_shapes
from poly_jax.training.mesh import shardings

Tree = dict[str, Any]

RANDOM = "random"
"""In place of a path: untrained weights, the same every time."""


def load_backbone(
    path: str, model: Transformer, mesh: Mesh, dtype: DTypeLike | None = None
) -> tuple[Tree, str]:
    """The backbone's parameters on the mesh, in the model's layout, and their content hash.

    Args:
      path: see `poly_jax.interop.backbone.read_backbone`; or `RANDOM`, for trials where no weights are at
        hand.
      model: whose backbone it is.
      mesh: where the parameters go.
      dtype: of the parameters; None for that of the model's activations.

    Raises:
      UserError: nothing readable at `path`, or its parameters are not this model's.
    """
    dtype = dtype or model.config.activation_dtype
    bare = Transformer(model.config)
    shapes, axes = parameter_shapes(bare)
    places = shardings(shapes, axes, mesh)
    if path == RANDOM:
        return _draw(bare, places, dtype), RANDOM
    tree = read_backbone(path, dtype=dtype)
    digest = content_hash(of_tree(tree))
    if model.config.scan_layers:
        tree = stack_layers(tree)
    check_tree(shapes, tree, path)
    return jax.device_put(tree, places), digest


def _draw(bare: Transformer, places: Tree, dtype: DTypeLike) -> Tree:
    def draw(key: PRNGKeyArray) -> Tree:
        return jax.tree.map(lambda leaf: leaf.astype(dtype), init_parameters(bare, key)[0])

    return jax.jit(draw, out_shardings=places)(jax.random.key(0))
