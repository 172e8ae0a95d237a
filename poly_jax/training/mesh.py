"""The device mesh, and the sharding of parameters and batches on it."""

import dataclasses
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import jax
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec, Sharding

from poly_jax.adapters.config import Adapters
from poly_jax.counted import counted
from poly_jax.errors import UserError
from poly_jax.training.mesh_parts import with_parts
from poly_jax.weights.divided_dimensions import check_divided
from poly_jax.weights.sharding import mesh_axes, parts_of, rules_for
from poly_jax.weights.t5_dimensions import T5Dimensions

AXES = ("data", "fsdp", "model")
"""The axes of the mesh, from the one with the least communication to the one with the most."""


@dataclasses.dataclass(frozen=True)
class Partitioning:
    """Shape of the device mesh, whose axes are `data`, `fsdp` and `model`.

    The axis `data` has the remaining factor of the number of devices: each group along it has its own copy of
    the parameters and its own examples.

    Attributes:
      fsdp: number of devices that share one copy of the parameters, each with its own examples.
      model: number of devices that share the work on one example (tensor parallelism).
    """

    fsdp: int = 1
    model: int = 1

    def fitted(self) -> "Partitioning":
        """Return the shape with the largest divisors of these axes that all devices here can form."""
        if self.fsdp < 1 or self.model < 1:
            return self
        devices = jax.devices()
        per_slice = len(devices) // len(set(map(_slice, devices)))
        model = math.gcd(self.model, per_slice)
        return Partitioning(math.gcd(self.fsdp, per_slice // model), model)

    def mesh(self, devices: Sequence[Any] | None = None) -> Mesh:
        """Arrange devices in a mesh.

        Devices of several slices differ only along the axis `data`, because the network between slices is
        much slower than the one inside.

        Args:
          devices: the devices, or descriptions of devices to compile for; None for all of this program.

        Raises:
          UserError: the product of the axes does not divide the number of devices of a slice.
        """
        devices = jax.devices() if devices is None else devices
        count, slices = len(devices), len(set(map(_slice, devices)))
        product, per_slice = self.fsdp * self.model, count // slices
        if self.fsdp < 1 or self.model < 1 or per_slice % product:
            where = counted(count, "device") if slices == 1 else f"the {per_slice} devices of each slice"
            raise UserError(
                f"Partitioning.fsdp {self.fsdp} x Partitioning.model {self.model} does not divide {where};"
                " choose two numbers whose product does"
            )
        shape = (per_slice // product, self.fsdp, self.model)
        # An axis of the mesh gets whole axes of the slice's torus where the sizes allow it, and a part of one
        # elsewhere. `jax.make_mesh` allows parts on v5e only.
        if slices == 1:
            arranged = mesh_utils.create_device_mesh(shape, devices, allow_split_physical_axes=True)
        else:
            arranged = mesh_utils.create_hybrid_device_mesh(
                shape, (slices, 1, 1), devices, allow_split_physical_axes=True
            )
        return Mesh(arranged, AXES, axis_types=(AxisType.Auto,) * 3)

    def mesh_for(
        self, model: T5Dimensions, adapters: Adapters | None, devices: Sequence[Any] | None = None
    ) -> Mesh:
        """Arrange devices in a mesh that divides a T5, and whose parts divide the tables of its tasks.

        Args:
          model: the T5.
          adapters: its adapters, whose tables have splits and skills; None where it has none.
          devices: as for `mesh`.

        Raises:
          UserError: `mesh` or `check_model` raises it.
        """
        mesh = self.mesh(devices)
        check_model(model, mesh)
        return mesh if adapters is None else with_parts(mesh, (adapters.n_splits, adapters.n_skills))


def _slice(device: Any) -> int:
    """The slice of TPUs that a device belongs to. Other platforms call a host a slice."""
    return getattr(device, "slice_index", None) or 0 if device.platform == "tpu" else 0


@contextmanager
def on_mesh(mesh: Mesh) -> Iterator[None]:
    """Trace programs inside the block for this mesh, with the model's sharding constraints."""
    with jax.set_mesh(mesh):
        yield


def shardings(shapes: Any, axes: Any, mesh: Mesh) -> Any:
    """Return the sharding of every leaf of a tree.

    Args:
      shapes: nested dict of arrays or shape structs.
      axes: nested dict of logical `PartitionSpec`s, which may have more leaves than `shapes`.
      mesh: the device mesh.

    Returns:
      A nested dict like `shapes`. The rule of a logical axis lists mesh axes in order; those that divide the
      axis evenly shard it.
    """
    if isinstance(shapes, dict):
        return {name: shardings(child, axes[name], mesh) for name, child in shapes.items()}
    return NamedSharding(mesh, mesh_axes(shapes.shape, axes, rules_for(axes), mesh.shape))


def axis_sizes(mesh: Mesh) -> dict[str, int]:
    """Return the size of each of the axes `AXES`, whose parts together are one axis."""
    return {axis: math.prod(mesh.shape[part] for part in parts_of(axis, mesh.shape)) for axis in AXES}


def row_devices(mesh: Mesh) -> int:
    """Return the number of devices over which the rows of a batch are divided."""
    return math.prod(mesh.shape[axis] for axis in _row_axes(mesh))


def _row_axes(mesh: Mesh) -> tuple[str, ...]:
    return parts_of("data", mesh.shape) + parts_of("fsdp", mesh.shape)


def replicated(mesh: Mesh) -> NamedSharding:
    """Return the sharding of a value that every device holds completely."""
    return NamedSharding(mesh, PartitionSpec())


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Return the sharding of a batch, whose rows are divided over the data axes."""
    return NamedSharding(mesh, PartitionSpec(_row_axes(mesh)))


def put(array: np.ndarray, place: Sharding) -> jax.Array:
    """Put an array that every host holds onto devices, of which each host has some."""
    return jax.make_array_from_callback(array.shape, place, array.__getitem__)


def to_mesh(batch: dict[str, np.ndarray], mesh: Mesh) -> dict[str, jax.Array]:
    """Make global arrays of this host's rows of a batch."""
    sharding = batch_sharding(mesh)
    return {
        name: jax.make_array_from_process_local_data(sharding, np.asarray(rows))
        for name, rows in batch.items()
    }


def check_model(model: T5Dimensions, mesh: Mesh) -> None:
    """Raise a UserError if a mesh leaves a dimension of a T5 undivided; see `check_divided`."""
    slices = len(set(map(_slice, mesh.devices.flat)))
    sizes = axis_sizes(mesh)
    check_divided(model, sizes["fsdp"], sizes["model"], mesh.size // slices)


def check_batch_size(batch_size: int, mesh: Mesh) -> None:
    """Raise a UserError if the rows of a batch cannot be divided evenly over the mesh."""
    rows = row_devices(mesh)
    if batch_size % rows:
        raise UserError(
            f"batch size {batch_size} is not a multiple of the {rows} devices of the data axes;"
            f" choose a multiple of {rows}"
        )
