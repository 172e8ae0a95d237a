"""Draws the initial parameters of a run on the mesh."""

from collections.abc import Callable
from typing import Any

import jax
from jax.sharding import Mesh

from poly_jax.model.transformer import Transformer, init_parameters, parameter_shapes
from poly_jax.training.memory import check_memory
from poly_jax.training.mesh import on_mesh, shardings
from poly_jax.weights.parameter_names import is_adapter_parameter
from poly_jax.weights.tree import split


def fresh_parameters(
    model: Transformer, seed: int, mesh: Mesh, wanted: Callable[[str], bool] = is_adapter_parameter
) -> dict[str, Any]:
    """Draw a part of a model's initial parameters, by default its adapters, from a seed.

    XLA removes computations whose results are not returned, so the backbone is not drawn with the adapters.

    Raises:
      UserError: the parameters do not fit into memory.
    """
    shapes, axes = parameter_shapes(model)
    places, _ = split(shardings(shapes, axes, mesh), wanted)
    check_memory(split(shapes, wanted)[0], places)
    # The program is long, and runs once. On CPUs the numbers are the same with fewer of LLVM's passes.
    draw = jax.jit(
        lambda key: split(init_parameters(model, key)[0], wanted)[0],
        out_shardings=places,
        compiler_options={"xla_backend_optimization_level": 1} if jax.default_backend() == "cpu" else None,
    )
    with on_mesh(mesh):
        return draw(jax.random.key(seed))
