"""Draws the initial parameters of a run on the mesh."""

from collections.abc import Callable
from typing import Any

import jax
from jax.extend.core import ClosedJaxpr, jaxpr_as_fun
from jax.interpreters.partial_eval import dce_jaxpr
from jax.sharding import Mesh

from poly_jax.model.transformer import Transformer, drawing
from poly_jax.training.memory import check_memory
from poly_jax.training.mesh import on_mesh, shardings
from poly_jax.weights.parameter_names import is_adapter_parameter
from poly_jax.weights.tree import flatten, split, unflatten


def fresh_parameters(
    model: Transformer, seed: int, mesh: Mesh, wanted: Callable[[str], bool] = is_adapter_parameter
) -> dict[str, Any]:
    """Draw a part of a model's initial parameters, by default its adapters, from a seed.

    The backbone is not drawn with the adapters: computations whose results are not returned are left out.

    Raises:
      UserError: the parameters do not fit into memory.
    """
    draw, axes = drawing(model)
    key = jax.random.key(seed)
    traced, shapes = jax.make_jaxpr(draw, return_shape=True)(key)
    chosen, _ = split(shapes, wanted)
    places, _ = split(shardings(shapes, axes, mesh), wanted)
    check_memory(chosen, places)
    used = jax.tree.leaves(unflatten({name: wanted(name) for name in flatten(shapes)}))
    needed, _ = dce_jaxpr(traced.jaxpr, used, instantiate=True)
    program = jaxpr_as_fun(ClosedJaxpr(needed, traced.consts))
    structure = jax.tree.structure(chosen)
    with on_mesh(mesh):
        if mesh.size > 1:
            drawn = jax.jit(program, out_shardings=jax.tree.leaves(places))(key)
            return jax.tree.unflatten(structure, drawn)
        # Operations that run one by one share their compiled programs, one for each shape. One program for
        # all of them would take a third as long to compile as the training step.
        return jax.device_put(jax.tree.unflatten(structure, program(key)), places)
