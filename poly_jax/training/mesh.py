"""The device mesh, and where on it each logical axis lives."""

import dataclasses
import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import flax.linen as nn
import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from poly_jax.errors import UserError

# Logical axes that are not listed are replicated. Adapters are small: only what grows with the number of
# tasks, a router's table and private skills, is spread. Where nothing divides that number it is whole: cut
# along the splits, by two axes of the mesh, XLA (jax 0.10.2 on CPUs) computed wrong gradients.
LOGICAL_AXIS_RULES: tuple[tuple[str, Any], ...] = (
    ("batch", ("data", "fsdp")),
    ("vocab", "model"),
    ("heads", "model"),
    ("joined_kv", "model"),
    ("mlp", "model"),
    ("embed", "fsdp"),
    ("tasks", ("fsdp", "model")),
)


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
    """Inside, the model's logical axis constraints refer to this mesh."""
    with mesh, nn.logical_axis_rules(LOGICAL_AXIS_RULES):
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
    return NamedSharding(mesh, _spec(shapes.shape, axes, mesh))


def _spec(shape: tuple[int, ...], axes: PartitionSpec, mesh: Mesh) -> PartitionSpec:
    rules = dict(LOGICAL_AXIS_RULES)
    spec: list[Any] = []
    used: set[str] = set()
    for size, logical in zip(shape, axes, strict=True):
        names = rules.get(logical) or ()
        names = (names,) if isinstance(names, str) else names
        taken: list[str] = []
        for name in names:
            if name not in used and size % math.prod(mesh.shape[other] for other in (*taken, name)) == 0:
                taken.append(name)
        used.update(taken)
        spec.append(tuple(taken) or None)
    return PartitionSpec(*spec)


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
