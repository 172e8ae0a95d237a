"""A run before its first step: the model, the trained tree and the frozen tree."""

import dataclasses
import functools
from typing import Any

import jax
from etils import epath
from jax.sharding import Mesh

from poly_jax.counted import counted
from poly_jax.model.transformer import Transformer
from poly_jax.training.backbone import RANDOM, load_backbone
from poly_jax.training.fresh import fresh_parameters
from poly_jax.training.mesh import replicated
from poly_jax.training.optimizer import like_parameters
from poly_jax.training.saved_step import Origin
from poly_jax.training.update import TrainState, Update, start
from poly_jax.weights.parameter_names import Trainable, is_adapter_parameter, selects
from poly_jax.weights.tree import merge, split

Tree = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Start:
    """The model and the parameters that training starts from.

    Attributes:
      model: the model in evaluation mode.
      trained: the trained tree, on the mesh.
      frozen: the parameters that are not trained, on the mesh.
      origin: the checkpoints that the trained tree builds on.
    """

    model: Transformer
    trained: Tree
    frozen: Tree
    origin: Origin


def begin(trained: Tree, update: Update, mesh: Mesh) -> TrainState:
    """Make the training state before the first step; moments have the sharding of their parameters."""
    places = jax.tree.map(lambda leaf: leaf.sharding, abstract_state(trained, update, mesh))
    return jax.jit(functools.partial(start, optimizer=update.optimizer), out_shardings=places)(trained)


def abstract_state(trained: Tree, update: Update, mesh: Mesh) -> TrainState:
    """Return shape, dtype and sharding of each array of the training state, without allocating any.

    Args:
      trained: the trained tree, or the shapes, dtypes and shardings of its arrays.
      update: the step, whose optimizer has the state.
      mesh: the device mesh.
    """
    shapes = jax.eval_shape(functools.partial(start, optimizer=update.optimizer), trained)
    places = jax.tree.map(lambda leaf: leaf.sharding, trained)
    return jax.tree.map(
        lambda leaf, place: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place),
        shapes,
        like_parameters(shapes, trained, places, replicated(mesh)),
    )


def fresh_start(
    model: Transformer, backbone: str | None, trainable: Trainable, seed: int, mesh: Mesh
) -> Start:
    """Make the start of a new training run.

    Args:
      model: the model in evaluation mode.
      backbone: path of the backbone, or "random"; None where all parameters are drawn.
      trainable: "adapters" or "all", the parameters that are trained.
      seed: seed of the parameters that are drawn.
      mesh: the device mesh.

    Raises:
      UserError: the backbone cannot be read, or does not fit this model.
    """
    loaded: Tree = {}
    origin = Origin()
    if backbone is not None:
        dtype = jax.numpy.float32 if trainable == "all" else None
        loaded, digest = load_backbone(backbone, model, mesh, dtype)
        if trainable != "all":
            origin = Origin(backbone if backbone == RANDOM else str(epath.Path(backbone).absolute()), digest)
    fresh = fresh_parameters(model, seed, mesh, is_adapter_parameter if loaded else lambda path: True)
    trained, frozen = split(merge(loaded, fresh), selects(trainable))
    return Start(model, trained, frozen, origin)


def describe(tree: Tree) -> str:
    """Return the number of parameters of a tree as a text for people."""
    count = sum(leaf.size for leaf in jax.tree.leaves(tree))
    return counted(count, "parameter")
