"""The device mesh, and the sharding of parameters and batches on it."""

import dataclasses
import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec, Sharding

from poly_jax.errors import UserError
from poly_jax.model.sharding import LOGICAL_AXIS_RULES, mesh_axes


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

    def mesh(self) -> Mesh:
        """Arrange all devices in a mesh.

        Raises:
          UserError: the product of the axes does not divide the number of devices.
        """
        count = jax.device_count()
        if self.fsdp < 1 or self.model < 1 or count % (self.fsdp * self.model):
            raise UserError(
                f"Partitioning.fsdp {self.fsdp} x Partitioning.model {self.model} does not divide {count}"
                " device(s); choose two numbers whose product does"
            )
        shape = (count // (self.fsdp * self.model), self.fsdp, self.model)
        return jax.make_mesh(shape, ("data", "fsdp", "model"), axis_types=(AxisType.Auto,) * 3)

    def fitted(self) -> "Partitioning":
        """Return the shape with the largest divisors of these axes that all devices here can form."""
        if self.fsdp < 1 or self.model < 1:
            return self
        model = math.gcd(self.model, jax.device_count())
        return Partitioning(math.gcd(self.fsdp, jax.device_count() // model), model)


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
    return NamedSharding(mesh, mesh_axes(shapes.shape, axes, LOGICAL_AXIS_RULES, mesh.shape))


def replicated(mesh: Mesh) -> NamedSharding:
    """Return the sharding of a value that every device holds completely."""
    return NamedSharding(mesh, PartitionSpec())


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Return the sharding of a batch, whose rows are divided over the data axes."""
    return NamedSharding(mesh, PartitionSpec(("data", "fsdp")))


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


def check_batch_size(batch_size: int, mesh: Mesh) -> None:
    """Raise a UserError if the rows of a batch cannot be divided evenly over the mesh."""
    rows = mesh.shape["data"] * mesh.shape["fsdp"]
    if batch_size % rows:
        raise UserError(
            f"batch size {batch_size} is not a multiple of the {rows} devices of the data axes;"
            f" choose a multiple of {rows}"
        )
