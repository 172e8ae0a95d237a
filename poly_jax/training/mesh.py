"""The device mesh, and where on it each logical axis lives."""

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import gin
import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from poly_jax.errors import UserError
from poly_jax.model.sharding import LOGICAL_AXIS_RULES, mesh_axes


@gin.configurable
@dataclasses.dataclass(frozen=True)
class Partitioning:
    """Shape of the device mesh: axes `data`, `fsdp` and `model`. One device is a mesh of one.

    Attributes:
      fsdp: devices that share one copy of the parameters, each with its own examples.
      model: devices that share the work on one example (tensor parallelism).
      The rest of the devices form the axis `data`: copies with their own examples.
    """

    fsdp: int = 1
    model: int = 1

    def mesh(self) -> Mesh:
        """All devices as a mesh."""
        count = jax.device_count()
        if self.fsdp < 1 or self.model < 1 or count % (self.fsdp * self.model):
            raise UserError(
                f"Partitioning.fsdp {self.fsdp} x Partitioning.model {self.model} does not divide {count}"
                " device(s)"
            )
        shape = (count // (self.fsdp * self.model), self.fsdp, self.model)
        return jax.make_mesh(shape, ("data", "fsdp", "model"), axis_types=(AxisType.Auto,) * 3)


@contextmanager
def on_mesh(mesh: Mesh) -> Iterator[None]:
    """Inside, programs are traced for this mesh, and the model's constraints hold on it."""
    with jax.set_mesh(mesh):
        yield


def shardings(shapes: Any, axes: Any, mesh: Mesh) -> Any:
    """The sharding of every leaf.

    Args:
      shapes: nested dict of arrays or shape structs.
      axes: nested dict of logical `PartitionSpec`s; may hold more than `shapes`.
      mesh: the device mesh.

    Returns:
      A nested dict like `shapes`. An axis is cut by those of its mesh axes that divide it, taken in order.
    """
    if isinstance(shapes, dict):
        return {name: shardings(child, axes[name], mesh) for name, child in shapes.items()}
    return NamedSharding(mesh, mesh_axes(shapes.shape, axes, LOGICAL_AXIS_RULES, mesh.shape))


def replicated(mesh: Mesh) -> NamedSharding:
    """The sharding of a value that every device holds whole."""
    return NamedSharding(mesh, PartitionSpec())


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """The sharding of a batch: its rows are spread over the data axes."""
    return NamedSharding(mesh, PartitionSpec(("data", "fsdp")))


def to_mesh(batch: dict[str, np.ndarray], mesh: Mesh) -> dict[str, jax.Array]:
    """This host's rows of a batch as global arrays."""
    sharding = batch_sharding(mesh)
    return {
        name: jax.make_array_from_process_local_data(sharding, np.asarray(rows))
        for name, rows in batch.items()
    }


def check_batch_size(batch_size: int, mesh: Mesh) -> None:
    """Raises a UserError where the batch cannot be spread evenly."""
    rows = mesh.shape["data"] * mesh.shape["fsdp"]
    if batch_size % rows:
        raise UserError(f"batch size {batch_size} is not a multiple of the {rows} devices of the data axes")
