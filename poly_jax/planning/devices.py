"""Descriptions of a slice's devices that programs are compiled for, without the slice."""

import dataclasses
import importlib.util
from typing import Any

import jax
from jax.experimental import topologies

from poly_jax.errors import UserError
from poly_jax.launch.slices import Slice

_NAMES = {"v7x": "tpu7x"}
"""The name of a generation in libtpu, where it differs."""


@dataclasses.dataclass(frozen=True)
class Devices:
    """Devices to compile for.

    Attributes:
      devices: JAX's descriptions of them, one for each device that a program would see.
      per_chip: number of devices of a chip.
    """

    devices: tuple[Any, ...]
    per_chip: int = 1


def tpu_devices(accelerators: Slice, slices: int = 1) -> Devices:
    """Describe the devices of one or several slices of TPUs, with libtpu.

    Raises:
      UserError: libtpu is not installed, or does not know the slice.
    """
    generation = accelerators.generation
    if importlib.util.find_spec("libtpu") is None:
        raise UserError(
            "plans for TPUs are compiled with libtpu, which is not installed; install it with"
            " `pip install '.[plan]'` in the project's folder (x86 Linux), or add --simulate to compile"
            " for CPUs"
        )
    name = f"{_NAMES.get(accelerators.kind, accelerators.kind)}:{accelerators.topology}"
    settings: dict[str, Any] = {"num_slices": slices} if slices > 1 else {}
    if accelerators.chips < 4:
        settings["chips_per_host_bounds"] = (1, 1, 1)
    try:
        found: Any = topologies.get_topology_desc(platform="tpu", topology_name=name, **settings).devices
    except Exception as error:  # JAX has no narrower one that it promises.
        line = " ".join(str(error).split())
        raise UserError(f"libtpu does not describe {name}: {line[:300]}") from error
    if generation.devices == 1:
        # For v4, libtpu describes both cores of a chip. JAX joins them on a real chip, but not in a
        # description, so one of them stands for the chip.
        found = [device for device in found if device.core_on_chip == 0]
    return Devices(tuple(found), generation.devices)


def simulated_devices(count: int, per_chip: int = 1) -> Devices:
    """Take CPU devices of this process in place of TPUs.

    Raises:
      UserError: the process has fewer.
    """
    devices = jax.devices("cpu")
    if len(devices) < count:
        raise UserError(
            f"a simulation needs {count} CPU devices, and this process has {len(devices)}; set"
            f" JAX_NUM_CPU_DEVICES={count} before it starts"
        )
    return Devices(tuple(devices[:count]), per_chip)
