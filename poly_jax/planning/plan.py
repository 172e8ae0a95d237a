"""The program `plan`: what a run's step takes on a slice, from the compiled step itself."""

import dataclasses
from importlib.metadata import version
from typing import Any, Literal

import jax

from poly_jax.data.task_table import TaskTable
from poly_jax.errors import UserError
from poly_jax.launch.slices import Slice, parse_slice
from poly_jax.planning.abstract_run import AbstractRun, Arguments, evaluation_program, train_program
from poly_jax.planning.collectives import Collective, collectives
from poly_jax.planning.compiled_flops import compiled_flops
from poly_jax.planning.devices import Devices, simulated_devices, tpu_devices
from poly_jax.planning.dot_flops import products, total_flops
from poly_jax.planning.hlo import read_hlo
from poly_jax.planning.memory import Memory, TooLarge, compile_or_measure, memory_of
from poly_jax.planning.peaks import PEAKS, Peaks
from poly_jax.planning.reshards import Contents
from poly_jax.training.mesh import axis_sizes
from poly_jax.weights.tree import merge

Program = Literal["train", "decode"]

_GIB = 2**30
# What the compiler leaves to programs on a v4 chip, of which it describes only halves: 2 x 15.25 GiB.
_V4_AVAILABLE = int(30.5 * _GIB)
# The share of the memory that programs may use on other chips, for simulations: 15.75 of v5e's 16 GiB.
_AVAILABLE = 15.75 / 16


@dataclasses.dataclass(frozen=True)
class Accelerators:
    """The slices to rent.

    Attributes:
      slice: the slice.
      slices: number of slices.
      simulate: whether CPU devices stand for the TPUs.
    """

    slice: Slice
    slices: int = 1
    simulate: bool = False

    @classmethod
    def named(cls, topology: str, slices: int = 1, simulate: bool = False) -> "Accelerators":
        """Find the slice of a name such as "v5e:4x4".

        Raises:
          UserError: there is no such slice, or it has GPUs.
        """
        found = parse_slice(topology)
        if found.tpu is None:
            raise UserError(
                f"topology {topology!r} has GPUs, and plans are for TPUs; give a slice such as v5e:4x4"
            )
        return cls(found, slices, simulate)

    @property
    def chips(self) -> int:
        """Number of chips of all slices."""
        return self.slice.chips * self.slices

    @property
    def devices(self) -> int:
        """Number of JAX devices of all slices."""
        return self.slice.devices * self.slices

    @property
    def peaks(self) -> Peaks:
        """The limits of one chip."""
        return PEAKS[self.slice.kind]

    def describe(self) -> Devices:
        """Describe the devices to compile for.

        Raises:
          UserError: libtpu is missing, or too few CPU devices are there for a simulation.
        """
        if self.simulate:
            return simulated_devices(self.devices, self.slice.generation.devices)
        return tpu_devices(self.slice, self.slices)

    @property
    def available(self) -> int | None:
        """Bytes of a chip's memory that a program may use; None where the compiler itself refuses more."""
        if self.simulate:
            return int(self.peaks.hbm_bytes * _AVAILABLE)
        return _V4_AVAILABLE if self.slice.kind == "v4" else None


@dataclasses.dataclass(frozen=True)
class Plan:
    """The memory, work and traffic of one step of a program.

    Attributes:
      accelerators: accelerators that it runs on.
      program: "train" or "decode".
      mesh: the size of each axis of the mesh.
      batch_size: number of rows of the step.
      memory: bytes of each chip.
      available: bytes of a chip that the program may use, where the compiler said so or it is known.
      dot_flops_per_chip: operations of matrix products, by the traced program.
      compiled_flops_per_chip: the same by the compiled program; None where it does not fit.
      float32_flops_per_chip: the part of `dot_flops_per_chip` with an operand in float32.
      collectives: collectives, with the bytes of a chip; None where the program does not fit.
      reshards: the collectives that only change how activations are sharded.
      fits: whether the memory is enough.
      compiled_for: the kind of chip that it was compiled for.
    """

    accelerators: Accelerators
    program: Program
    mesh: dict[str, int]
    batch_size: int
    memory: Memory
    available: int | None
    dot_flops_per_chip: float
    compiled_flops_per_chip: float | None
    float32_flops_per_chip: float
    collectives: list[Collective] | None
    reshards: list[Collective]
    fits: bool
    compiled_for: str

    @property
    def seconds_at_peak(self) -> float:
        """Seconds of the matrix products if a chip reached its peak in bfloat16."""
        return self.dot_flops_per_chip / self.accelerators.peaks.bfloat16

    def bytes_sent(self, network: str) -> int:
        """Bytes of the collectives over "ici" or "dcn" in a step."""
        return sum(each.bytes for each in self.collectives or () if each.network == network)


def make_plan(
    run: AbstractRun,
    table: TaskTable,
    accelerators: Accelerators,
    program: Program = "train",
    decode_batch_size: int = 32,
) -> Plan:
    """Compile a run's step for accelerators and read what it takes.

    Args:
      run: the run.
      table: its tasks.
      accelerators: accelerators that it is to run on.
      program: "train" for the training step, "decode" for the program that predicts a batch in evaluation.
      decode_batch_size: number of rows of such a batch.

    Raises:
      UserError: the mesh or the batch cannot be laid over the devices, the configuration is not possible, or
        libtpu is missing or too new for JAX.
    """
    run.check()
    compiled_for = accelerators.slice.kind
    described = accelerators.describe()
    traced, arguments, mesh = _trace(run, table, described, program, decode_batch_size)
    compiled = compile_or_measure(traced.lower())
    if isinstance(compiled, TooLarge) and compiled_for == "v4" and compiled.needed <= _V4_AVAILABLE:
        # libtpu allows only half of a chip's memory here. A v5p slice has the same shape and more memory.
        compiled_for = "v5p"
        larger = parse_slice(f"{compiled_for}:{accelerators.slice.topology}")
        described = dataclasses.replace(accelerators, slice=larger).describe()
        traced, arguments, mesh = _trace(run, table, described, program, decode_batch_size)
        compiled = compile_or_measure(traced.lower())
    memory = memory_of(compiled, arguments).per_chip(described.per_chip)
    available = accelerators.available
    flops = products(traced.jaxpr, run.experiment.decoding.max_length)
    float32 = [product for product in flops if "float32" in product.dtypes]
    common: dict[str, Any] = {
        "accelerators": accelerators,
        "program": program,
        "mesh": axis_sizes(mesh),
        "batch_size": decode_batch_size if program == "decode" else run.data.batch_size,
        "memory": memory,
        "dot_flops_per_chip": total_flops(flops) / accelerators.chips,
        "float32_flops_per_chip": total_flops(float32) / accelerators.chips,
        "compiled_for": compiled_for,
    }
    if isinstance(compiled, TooLarge):
        return Plan(
            **common,
            available=compiled.available * described.per_chip if available is None else available,
            compiled_flops_per_chip=None,
            collectives=None,
            reshards=[],
            fits=False,
        )
    module = read_hlo(_text(compiled))
    sent = [
        dataclasses.replace(each, bytes=each.bytes * described.per_chip)
        for each in collectives(module, mesh.size // accelerators.slices)
    ]
    contents = Contents(merge(arguments.frozen, arguments.trained), arguments.batch)
    return Plan(
        **common,
        available=available,
        compiled_flops_per_chip=compiled_flops(module) * described.per_chip,
        collectives=sent,
        reshards=contents.reshards(sent),
        fits=available is None or memory.peak <= available,
    )


def _text(compiled: jax.stages.Compiled) -> str:
    """The compiled program's HLO as text."""
    try:
        text = compiled.as_text()
    except jax.errors.JaxRuntimeError as error:
        # libtpu 0.0.52 uses operations for v5p, v6e and v7x that jaxlib 0.10.2 does not know.
        raise UserError(
            f"jaxlib {version('jaxlib')} cannot read the program that libtpu {version('libtpu')} compiled;"
            " install the libtpu that belongs to this JAX with pip install '.[plan]' in the project's folder"
        ) from error
    assert text is not None
    return text


def _trace(
    run: AbstractRun, table: TaskTable, described: Devices, program: Program, decode_batch_size: int
) -> tuple[Any, Arguments, Any]:
    mesh = run.partitioning.mesh_for(run.experiment.model, run.experiment.adapters, described.devices)
    if program == "decode":
        return *evaluation_program(run, table, mesh, decode_batch_size), mesh
    return *train_program(run, table, mesh), mesh
