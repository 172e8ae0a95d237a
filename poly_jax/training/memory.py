"""The memory of the devices and of this process: whether arrays fit, and what is given back."""

import ctypes
import math
import os
from typing import Any

import jax
from jax.sharding import NamedSharding

from poly_jax.errors import UserError


def check_memory(shapes: Any, places: Any) -> None:
    """Raise a UserError where parameters alone take more than all memory of a device.

    Without this check a CPU's operating system would end the process, or the machine would start to swap.

    Args:
      shapes: nested dict of arrays or shape structs.
      places: their shardings.
    """
    leaves = list(zip(jax.tree.leaves(shapes), jax.tree.leaves(places), strict=True))
    if not leaves:
        return
    needed = sum(math.prod(place.shard_shape(leaf.shape)) * leaf.dtype.itemsize for leaf, place in leaves)
    memory = _memory(leaves[0][1])
    if needed > memory:
        raise UserError(
            f"the parameters take {needed / 2**30:,.1f} GiB on each device, which has {memory / 2**30:,.1f};"
            " choose a smaller model or adapters, or share them among more devices with Partitioning.fsdp"
        )


def _memory(place: NamedSharding) -> float:
    """Bytes of one device's memory. Simulated devices, and CPUs in general, share that of the machine."""
    devices: list[Any] = list(place.addressable_devices)
    stats = devices[0].memory_stats() or {}
    if "bytes_limit" in stats:
        return stats["bytes_limit"]
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / len(devices)


def return_freed_memory() -> None:
    """Give the memory that this process has freed back to the operating system, where the C library can.

    Compilers allocate and free many small blocks, and glibc keeps the pages for later blocks. Arrays get
    pages of their own, so that without this call the most that a process holds is the sum of both.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
