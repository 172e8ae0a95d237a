"""Slices of accelerators by the vendor's names: which exist, and how many chips, hosts and devices they have.

Sources for TPUs: https://cloud.google.com/kubernetes-engine/docs/concepts/plan-tpus (topologies, machine
types, node labels), https://cloud.google.com/tpu/docs/v5p (accelerator types; the largest v5p job has 96
cubes), https://cloud.google.com/tpu/docs/runtimes (software versions). GPUs are written as hosts x
GPUs of a host.
"""

import dataclasses
import math
import re
from collections.abc import Mapping

from poly_jax.errors import UserError
from poly_jax.suggestion import close_names, did_you_mean

_CUBE = 4
_TOPOLOGY = re.compile(r"[1-9][0-9]*(x[1-9][0-9]*){1,2}")
_SMALL_3D = ("2x2x1", "2x2x2", "2x2x4", "2x4x4")
_FLAT = {"1x1": 1, "2x2": 4, "2x4": 8, "4x4": 4, "4x8": 4, "8x8": 4, "8x16": 4, "16x16": 4}
# The shapes that an accelerator type means where it names only a number of cores.
_USUAL_3D = (*_SMALL_3D, "4x4x4", "4x4x8", "4x8x8", "8x8x8", "8x8x16", "8x16x16", "16x16x16", "16x16x24")


@dataclasses.dataclass(frozen=True)
class Generation:
    """One generation of TPUs.

    Attributes:
      name: short name, such as "v5e".
      node_label: value of GKE's node label `cloud.google.com/gke-tpu-accelerator`.
      machine: prefix of the Compute Engine machine types; `-4t` follows for four chips on a host.
      accelerator: prefix of the accelerator types of the Cloud TPU API, such as "v5litepod"; None where that
        API does not have the generation.
      units: number that an accelerator type counts for each chip: 2 where it counts TensorCores.
      software: software version of a TPU VM; None as for `accelerator`.
      devices: number of JAX devices of a chip.
      flat: number of chips of a host, by the 2D topologies; empty for 3D generations.
      most_cubes: number of 4x4x4 cubes of the largest slice; 0 for 2D generations.
    """

    name: str
    node_label: str
    machine: str
    accelerator: str | None
    units: int
    software: str | None
    devices: int = 1
    flat: Mapping[str, int] = dataclasses.field(default_factory=dict)
    most_cubes: int = 0

    def chips_per_host(self, topology: str) -> int | None:
        """Return the number of chips of each host of a slice, or None if there is no such slice."""
        if self.flat:
            return self.flat.get(topology)
        shape = [int(side) for side in topology.split("x")]
        cubes = math.prod(shape) // _CUBE**3
        whole = len(shape) == 3 and shape == sorted(shape) and not any(side % _CUBE for side in shape)
        return 4 if topology in _SMALL_3D or (whole and cubes <= self.most_cubes) else None

    @property
    def shapes(self) -> str:
        """The topologies that exist, in words."""
        if self.flat:
            return ", ".join(self.flat)
        small = ", ".join(_SMALL_3D)
        return f"{small}, or AxBxC of multiples of 4 with A <= B <= C and at most {self.most_chips} chips"

    @property
    def most_chips(self) -> int:
        """Number of chips of the largest slice."""
        return max(map(_product, self.flat)) if self.flat else self.most_cubes * _CUBE**3


GENERATIONS = {
    generation.name: generation
    for generation in (
        Generation("v4", "tpu-v4-podslice", "ct4p-hightpu", "v4", 2, "tpu-ubuntu2204-base", most_cubes=64),
        Generation(
            "v5e", "tpu-v5-lite-podslice", "ct5lp-hightpu", "v5litepod", 1, "v2-alpha-tpuv5-lite", flat=_FLAT
        ),
        Generation("v5p", "tpu-v5p-slice", "ct5p-hightpu", "v5p", 2, "v2-alpha-tpuv5", most_cubes=96),
        Generation("v6e", "tpu-v6e-slice", "ct6e-standard", "v6e", 1, "v2-alpha-tpuv6e", flat=_FLAT),
        Generation("v7x", "tpu7x", "tpu7x-standard", None, 2, None, devices=2, most_cubes=144),
    )
}
GPUS = ("a100", "a100-80gb", "b200", "h100", "h200", "l4")
_MOST_GPUS = 8


@dataclasses.dataclass(frozen=True)
class Slice:
    """Chips that are rented together.

    Attributes:
      kind: "v5e" and so on for TPUs, or the name of a GPU.
      topology: the chips' arrangement, such as "4x4" or "2x2x2"; for GPUs "HOSTSxGPUS".
      chips: number of chips.
      hosts: number of machines.
      devices: number of JAX devices.
      tpu: other name of the TPU's generation; None for GPUs.
    """

    kind: str
    topology: str
    chips: int
    hosts: int
    devices: int
    tpu: Generation | None = None

    @property
    def name(self) -> str:
        """The slice as the user writes it, such as "v5e:4x4"."""
        return f"{self.kind}:{self.topology}"

    @property
    def chips_per_host(self) -> int:
        """Number of chips of each machine."""
        return self.chips // self.hosts

    @property
    def machine(self) -> str:
        """The Compute Engine machine type of a TPU's hosts."""
        return f"{self.generation.machine}-{self.chips_per_host}t"

    @property
    def accelerator_type(self) -> str:
        """The name in the Cloud TPU API, such as "v5litepod-16".

        Raises:
          UserError: the API does not have this generation, or has no such name for this shape.
        """
        generation = self.generation
        if generation.accelerator is None:
            raise UserError(
                f"the Cloud TPU API does not offer {self.kind}; use --target=jobset, cluster_toolkit or xpk"
            )
        if not generation.flat and self.topology not in _USUAL_3D:
            usual = [shape for shape in _USUAL_3D if _product(shape) == self.chips]
            instead = f"use {self.kind}:{usual[0]}" if usual else "choose another number of chips"
            raise UserError(
                f"slice {self.name} has no accelerator type, which names only the number of chips; {instead}"
                " or another target"
            )
        return f"{generation.accelerator}-{self.chips * generation.units}"

    @property
    def generation(self) -> Generation:
        """The TPU's generation.

        Raises:
          UserError: the slice has GPUs.
        """
        if self.tpu is None:
            raise UserError(
                f"slice {self.name} has GPUs, and this target has TPUs; choose a slice such as v5e:4x4"
            )
        return self.tpu


def parse_slice(text: str) -> Slice:
    """Read the name of a slice.

    Args:
      text: "v5e:4x4" for TPUs, "h100:2x8" for 2 hosts with 8 GPUs each.

    Raises:
      UserError: there is no such accelerator, or no slice of that shape.
    """
    kind, _, topology = text.partition(":")
    if kind not in GENERATIONS and kind not in GPUS:
        known = (*GENERATIONS, *GPUS)
        question = did_you_mean(close_names(kind, known))
        raise UserError(
            f"slice {text!r} names no accelerator that is known;"
            f" {question or 'write KIND:TOPOLOGY, as in v5e:4x4'} (known: {', '.join(known)})"
        )
    if not _TOPOLOGY.fullmatch(topology):
        usual = "2x8" if kind in GPUS else "4x4" if GENERATIONS[kind].flat else "4x4x4"
        raise UserError(f"slice {text!r} has no topology; write {kind}:{usual} or the like")
    if kind in GPUS:
        return _gpus(text, kind, topology)
    generation, chips = GENERATIONS[kind], _product(topology)
    per_host = generation.chips_per_host(topology)
    if per_host is None:
        if chips > generation.most_chips:
            raise UserError(
                f"slice {text!r} has {chips} chips, and the largest {kind} slice has {generation.most_chips};"
                " choose a smaller one, or several with --slices"
            )
        raise UserError(f"slice {text!r} does not exist; {kind} has the topologies {generation.shapes}")
    return Slice(kind, topology, chips, max(1, chips // per_host), chips * generation.devices, generation)


def _gpus(text: str, kind: str, topology: str) -> Slice:
    hosts, *rest = map(int, topology.split("x"))
    if len(rest) != 1 or rest[0] > _MOST_GPUS:
        raise UserError(
            f"slice {text!r} does not exist; write GPUs as {kind}:HOSTSxGPUS with at most {_MOST_GPUS}"
            " GPUs on a host"
        )
    return Slice(kind, topology, hosts * rest[0], hosts, hosts * rest[0])


def _product(topology: str) -> int:
    return math.prod(int(side) for side in topology.split("x"))
