"""The part of every batch that a host reads: the rows that its devices compute."""

import dataclasses

import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Int

from poly_jax.errors import UserError
from poly_jax.training.mesh import axis_sizes


@dataclasses.dataclass(frozen=True)
class HostShare:
    """One of `count` equal parts of every batch, numbered from 0."""

    index: int
    count: int


def host_share(mesh: Mesh) -> HostShare:
    """Return this host's share of the batches on a mesh.

    Raises:
      UserError: see `share_of`.
    """
    processes = np.vectorize(lambda device: device.process_index)(mesh.devices)
    return share_of(processes.reshape(tuple(axis_sizes(mesh).values())), jax.process_index())


def share_of(processes: Int[np.ndarray, "data fsdp model"], process: int) -> HostShare:
    """Return the share of a process, given the process of every device of a mesh.

    Processes whose devices compute the same rows have the same share. This happens with tensor parallelism
    across hosts.

    Raises:
      UserError: two processes have some but not all rows in common, so there are no equal shares.
    """
    rows = processes.reshape(-1, processes.shape[-1])
    read = {int(name): tuple(np.flatnonzero((rows == name).any(axis=1))) for name in np.unique(processes)}
    shares = sorted(set(read.values()))
    if sum(map(len, shares)) != len(rows) or len({len(share) for share in shares}) != 1:
        raise UserError(
            f"on a mesh of data, fsdp and model {processes.shape} hosts share some of a batch's rows"
            " but not all; choose a Partitioning.model that divides the number of a host's devices, or is a"
            " multiple of it"
        )
    return HostShare(shares.index(read[process]), len(shares))
