"""The axes of the device mesh that cut an array, and constraints that hold inside programs."""

import itertools
import math
import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax.linen import get_logical_axis_rules
from jax.sharding import AbstractMesh, AxisType, Mesh, PartitionSpec
from jaxtyping import Array

with warnings.catch_warnings():
    # JAX deprecates `with mesh:`, and t5x's programs enter it; nothing else tells which mesh that was.
    warnings.simplefilter("ignore", DeprecationWarning)
    from jax.interpreters.pxla import thread_resources

Rules = Sequence[tuple[str, Any]]

# Logical axes that are not listed are replicated.
LOGICAL_AXIS_RULES: Rules = (
    ("batch", ("data", "fsdp")),
    ("vocab", "model"),
    ("heads", "model"),
    ("joined_kv", "model"),
    ("mlp", "model"),
    ("embed", "fsdp"),
    ("splits", ("model", "fsdp")),
    ("skills", ("model", "fsdp")),
    ("lora_in", ("model", "fsdp")),
    ("lora_out", ("model", "fsdp")),
)
TABLE_AXES = ("model", "fsdp", "data")
TASK_AXIS_RULES: Rules = (
    ("splits", TABLE_AXES),
    ("tasks", TABLE_AXES),
    ("skills", TABLE_AXES),
    ("lora_in", TABLE_AXES),
    ("lora_out", TABLE_AXES),
)
"""The rules of arrays that grow with the number of tasks. No number of tasks has to be divisible: T0's 313 is
prime, and what the tasks leave, the other axes take."""


def part_name(axis: str, number: int) -> str:
    """Return the name of a part of an axis that is cut into several, numbered from 0."""
    return axis if number == 0 else f"{axis}_{number + 1}"


def parts_of(axis: str, names: Iterable[str]) -> tuple[str, ...]:
    """Return those of a mesh's axes that are an axis of this name, or its parts."""
    return tuple(name for name in names if name == axis or name.rpartition("_")[0] == axis)


def mesh_axes(
    shape: Sequence[int], names: Sequence[str | None], rules: Rules, sizes: Mapping[str, int]
) -> PartitionSpec:
    """The mesh axes that cut each axis of an array: those of its rule that divide it, taken in order.

    Args:
      shape: the array's shape.
      names: the logical name of each axis.
      rules: pairs of a logical name and one mesh axis, several or None. Earlier rules choose first, and the
        first rule for a name that finds a mesh axis decides, as in Flax.
      sizes: the size of each mesh axis; an axis may be cut into parts (see `parts_of`).
    """
    spec: list[tuple[str, ...] | None] = [None] * len(shape)
    used: set[str] = set()
    for name, wanted in rules:
        if name not in names or spec[place := names.index(name)]:
            continue
        taken: list[str] = []
        named = (wanted,) if isinstance(wanted, str) else wanted or ()
        for axis in itertools.chain.from_iterable(parts_of(axis, sizes) for axis in named):
            count = math.prod(sizes[other] for other in (*taken, axis))
            if axis not in used and shape[place] % count == 0:
                taken.append(axis)
        used.update(taken)
        spec[place] = tuple(taken) or None
    return PartitionSpec(*spec)


def rules_for(names: Sequence[str | None]) -> Rules:
    """The rules for the axes of an array: Flax's where a caller set them, as t5x does, else this module's."""
    if rules := get_logical_axis_rules():
        return rules
    return TASK_AXIS_RULES if "tasks" in names else LOGICAL_AXIS_RULES


def mesh_in_force() -> tuple[Mesh | AbstractMesh, dict[str, int]]:
    """The mesh that programs are traced for, and the sizes of the axes over which XLA divides arrays.

    The mesh is the one that `jax.set_mesh`, `jax.sharding.use_abstract_mesh` or, in t5x's programs,
    `with mesh:` entered.
    """
    mesh: Mesh | AbstractMesh = jax.sharding.get_abstract_mesh()
    if mesh.empty:
        mesh = thread_resources.env.physical_mesh
    kinds = zip(mesh.axis_names, mesh.axis_types, strict=True)
    return mesh, {name: mesh.shape[name] for name, kind in kinds if kind == AxisType.Auto}


def devices_in_force() -> int:
    """The number of devices over which XLA divides arrays in the mesh in force; 1 without a mesh."""
    return math.prod(mesh_in_force()[1].values())


def constrain(x: Array, *names: str | None) -> Array:
    """The same array, laid out over the mesh in force as the rules for its logical axes say.

    Without a mesh of several devices this does nothing.

    It takes the place of `flax.linen.with_logical_constraint`, which does nothing under `with mesh:`, without
    a word, and cuts axes that the mesh does not divide.
    """
    if devices_in_force() == 1:
        return x
    _, sizes = mesh_in_force()
    return jax.lax.with_sharding_constraint(x, mesh_axes(x.shape, names, rules_for(names), sizes))


def copies(x: Array, names: Sequence[str | None], width: int, width_name: str) -> Array | None:
    """Copies of an array on a new first axis, one for each part into which the mesh cuts another axis.

    Each device has its own copy, so nothing is sent. What is summed over the copies is sent once: where
    several products of x with kernels of this width share the copies, the gradients of x are first added up
    on each device and then between devices. (With x itself, XLA sends the gradient of each product.)

    Args:
      x: the array.
      names: the logical name of each of its axes.
      width: length of the axis that is cut.
      width_name: its logical name.

    Returns:
      The copies, [parts, ...]; None where the axis is not cut.
    """
    _, sizes = mesh_in_force()
    found = mesh_axes((width,), (width_name,), rules_for((width_name,)), sizes)[0] or ()
    over = (found,) if isinstance(found, str) else found
    parts = math.prod(sizes[axis] for axis in over)
    if parts == 1:
        return None
    left = {name: size for name, size in sizes.items() if name not in over}
    spec = PartitionSpec(over, *mesh_axes(x.shape, names, rules_for(names), left))
    return jax.lax.with_sharding_constraint(jnp.broadcast_to(x, (parts, *x.shape)), spec)
