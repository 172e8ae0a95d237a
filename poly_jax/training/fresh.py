"""Draws the initial parameters of a run on the mesh."""

from collections.abc import Callable
from typing import Any

import jax
from jax.extend.core import ClosedJaxpr, jaxpr_as_fun
from jax.interpreters.partial_eval import dce_jaxpr
from jax.sharding import Mesh
from jaxtyping import Array, PRNGKeyArray

from poly_jax.model.parameters import drawing
from poly_jax.model.transformer import Transformer
from poly_jax.training.memory import check_memory
from poly_jax.training.mesh import on_mesh, shardings
from poly_jax.weights.parameter_names import is_adapter_parameter
from poly_jax.weights.tree import flatten, split, unflatten


def fresh_parameters(
    model: Transformer, seed: int, mesh: Mesh, wanted: Callable[[str], bool] = is_adapter_parameter
) -> dict[str, Any]:
    """Draw a part of a model's initial parameters, by default its adapters, from a seed.

    The backbone is not drawn with the adapters.

    Raises:
      UserError: the parameters do not fit into memory.
    """
    draw, axes = drawing(model)
    key = jax.random.key(seed)
    with on_mesh(mesh):
        traced, shapes = jax.make_jaxpr(draw, return_shape=True)(key)
    chosen, _ = split(shapes, wanted)
    places, _ = split(shardings(shapes, axes, mesh), wanted)
    check_memory(chosen, places)
    used = jax.tree.leaves(unflatten({name: wanted(name) for name in flatten(shapes)}))
    drawn = _drawn(traced, used, key, jax.tree.leaves(places), mesh)
    return jax.tree.unflatten(jax.tree.structure(chosen), drawn)


def draw_parameters(
    draw: Callable[[PRNGKeyArray], dict[str, Any]], seed: int, places: Any, mesh: Mesh
) -> dict[str, Any]:
    """Draw the parameters that a function returns for the key of a seed, with these shardings on the mesh."""
    key = jax.random.key(seed)
    with on_mesh(mesh):
        traced = jax.make_jaxpr(draw)(key)
    leaves, structure = jax.tree.flatten(places)
    return jax.tree.unflatten(structure, _drawn(traced, [True] * len(leaves), key, leaves, mesh))


def _drawn(
    traced: ClosedJaxpr, used: list[bool], key: PRNGKeyArray, places: list[Any], mesh: Mesh
) -> list[Array]:
    # A module draws its parameters while it computes its outputs, which are left out.
    needed, _ = dce_jaxpr(traced.jaxpr, used, instantiate=True)
    program = jaxpr_as_fun(ClosedJaxpr(needed, traced.consts))
    with on_mesh(mesh):
        if mesh.size > 1:
            return jax.jit(program, out_shardings=places)(key)
        # Operations that run one by one share their compiled programs, one for each shape. One program for
        # all of them takes longer to compile than the training step.
        return jax.device_put(program(key), places)
