"""Which axes of the device mesh cut an array, and constraints that hold inside the model's programs."""

import math
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import jax
from flax.linen import get_logical_axis_rules
from jax.sharding import AbstractMesh, AxisType, Mesh, PartitionSpec
from jaxtyping import Array

with warnings.catch_warnings():
    # JAX deprecates `with mesh:`, and t5x's programs enter it; nothing else tells which mesh that was.
    warnings.simplefilter("ignore", DeprecationWarning)
    from jax.interpreters.pxla import thread_resources

Rules = Sequence[tuple[str, Any]]

# Logical axes that are not listed are replicated. Adapters are small: only what grows with the number of
# tasks is sharded, which is a router's table and private skills. A table whose tasks nothing divides stays
# whole: cut along its splits, XLA (jax 0.10.2 on CPUs) computes wrong gradients, whatever is constrained.
LOGICAL_AXIS_RULES: Rules = (
    ("batch", ("data", "fsdp")),
    ("vocab", "model"),
    ("heads", "model"),
    ("joined_kv", "model"),
    ("mlp", "model"),
    ("embed", "fsdp"),
    ("tasks", ("fsdp", "model")),
)


def mesh_axes(
    shape: Sequence[int], names: Sequence[str | None], rules: Rules, sizes: Mapping[str, int]
) -> PartitionSpec:
    """The mesh axes that cut each axis of an array: those of its rule that divide it, taken in order.

    Args:
      shape: the array's shape.
      names: the logical name of each axis.
      rules: pairs of a logical name and one mesh axis, several or None. Earlier rules choose first, and the
        first rule for a name that finds a mesh axis decides, as in Flax.
      sizes: the size of each mesh axis.
    """
    spec: list[tuple[str, ...] | None] = [None] * len(shape)
    used: set[str] = set()
    for name, wanted in rules:
        if name not in names or spec[place := names.index(name)]:
            continue
        taken: list[str] = []
        for axis in (wanted,) if isinstance(wanted, str) else wanted or ():
            count = math.prod(sizes[other] for other in (*taken, axis) if other in sizes)
            if axis in sizes and axis not in used and shape[place] % count == 0:
                taken.append(axis)
        used.update(taken)
        spec[place] = tuple(taken) or None
    return PartitionSpec(*spec)


def constrain(x: Array, *names: str) -> Array:
    """The same array, laid out over the mesh in force as the rules for its logical axes say.

    The mesh is the one that `jax.set_mesh`, `jax.sharding.use_abstract_mesh` or, in t5x's programs,
    `with mesh:` entered. The rules are Flax's where a caller set them, as t5x does, else
    `LOGICAL_AXIS_RULES`. Without a mesh of several devices this does nothing.

    It takes the place of `flax.linen.with_logical_constraint`, which does nothing under `with mesh:`, without
    a word, and cuts axes that the mesh does not divide.
    """
    mesh: Mesh | AbstractMesh = jax.sharding.get_abstract_mesh()
    if mesh.empty:
        mesh = thread_resources.env.physical_mesh
    kinds = zip(mesh.axis_names, mesh.axis_types, strict=True)
    sizes = {name: mesh.shape[name] for name, kind in kinds if kind == AxisType.Auto}
    if math.prod(sizes.values()) == 1:
        return x
    rules = get_logical_axis_rules() or LOGICAL_AXIS_RULES
    return jax.lax.with_sharding_constraint(x, mesh_axes(x.shape, names, rules, sizes))
