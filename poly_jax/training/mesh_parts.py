"""Cuts the axes of a mesh into parts, so that more of it can divide tables of tasks."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
from jax.sharding import Mesh

from poly_jax.weights.sharding import TABLE_AXES, part_name


def cut_axes(sizes: Mapping[str, int], lengths: Sequence[int]) -> dict[str, tuple[int, ...]]:
    """Cut each axis of a mesh into the parts that divide some lengths, and a rest.

    An axis of a mesh divides a length as a whole or not at all: neither 64 splits nor 8 skills are divided by
    an axis of 256 devices, but by its parts of 64 and 4.

    Args:
      sizes: size of each of the axes `TABLE_AXES`.
      lengths: the lengths in the order in which they are to be divided; each is divided by as many parts of
        as many axes as possible before the next.

    Returns:
      The sizes of the parts of each axis; one part for an axis that stays whole.
    """
    left, cut = list(lengths), {}
    # The first choice is that of `mesh_axes` for tables.
    for axis in TABLE_AXES:
        rest, parts = sizes[axis], []
        for place, length in enumerate(left):
            part = math.gcd(rest, length)
            rest, left[place] = rest // part, length // part
            parts.append(part)
        cut[axis] = tuple(part for part in (*parts, rest) if part > 1) or (1,)
    return {axis: cut[axis] for axis in sizes}


def with_parts(mesh: Mesh, lengths: Sequence[int]) -> Mesh:
    """Return a mesh of the same devices, whose axes are cut as `cut_axes` says.

    The parts of `fsdp` are `fsdp`, `fsdp_2` and so on; `weights.sharding` finds them by the name of the axis.
    """
    cut = cut_axes(mesh.shape, lengths)
    names = [part_name(axis, number) for axis, parts in cut.items() for number in range(len(parts))]
    if len(names) == len(cut):
        return mesh
    devices = np.asarray(mesh.devices).reshape([part for parts in cut.values() for part in parts])
    kinds = dict(zip(mesh.axis_names, mesh.axis_types, strict=True))
    return Mesh(devices, names, axis_types=tuple(kinds[axis] for axis, parts in cut.items() for _ in parts))
