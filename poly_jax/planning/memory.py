"""The bytes that a compiled program needs on each device, by kind."""

import dataclasses
import math
import re
from typing import Any

import jax
from jax.errors import JaxRuntimeError

from poly_jax.planning.abstract_run import Arguments

_TOO_LARGE = re.compile(r"\(([\d.]+)([KMGT]?)\) exceeds available HBM \(([\d.]+)([KMGT]?)\)")
_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


@dataclasses.dataclass(frozen=True)
class Memory:
    """Bytes on one device or, after `per_chip`, on one chip.

    Attributes:
      frozen: the frozen parameters' share.
      trained: the trained parameters' share.
      optimizer: the share of the optimizer's state.
      activations: everything else at the moment when most is held: activations, gradients, the batch, copies,
        and the padding of all arrays to the device's tiles.
      program: the program itself; None where it does not fit, because there is no program then.
      peak: the most that is held at any moment.
    """

    frozen: int
    trained: int
    optimizer: int
    activations: int
    program: int | None
    peak: int

    def per_chip(self, devices: int) -> "Memory":
        """The bytes of all devices of a chip."""
        program = None if self.program is None else self.program * devices
        return Memory(
            self.frozen * devices,
            self.trained * devices,
            self.optimizer * devices,
            self.activations * devices,
            program,
            self.peak * devices,
        )


@dataclasses.dataclass(frozen=True)
class TooLarge:
    """The compiler's message about a program that does not fit.

    Attributes:
      needed: bytes that it needs on each device, arguments included.
      available: bytes of a device that programs may use.
    """

    needed: int
    available: int


def bytes_on_device(tree: Any) -> int:
    """Bytes of each device's share of arrays, given dtypes, shapes and shardings; two int4 are a byte."""
    return sum(
        math.prod(leaf.sharding.shard_shape(leaf.shape)) * jax.dtypes.itemsize_bits(leaf.dtype) // 8
        for leaf in jax.tree.leaves(tree)
    )


def compile_or_measure(lowered: Any) -> Any:
    """Compile a lowered program.

    Returns:
      The compiled program, or a `TooLarge`.
    """
    try:
        return lowered.compile()
    except JaxRuntimeError as error:
        found = _TOO_LARGE.search(str(error))
        if found is None:
            raise
        return TooLarge(int(float(found[1]) * _UNITS[found[2]]), int(float(found[3]) * _UNITS[found[4]]))


def memory_of(compiled: Any, arguments: Arguments) -> Memory:
    """Divide a program's memory by kind.

    Args:
      compiled: result of `compile_or_measure`.
      arguments: arguments of the program.
    """
    if isinstance(compiled, TooLarge):
        peak, program = compiled.needed, None
    else:
        stats = compiled.memory_analysis()
        held = stats.argument_size_in_bytes + stats.output_size_in_bytes - stats.alias_size_in_bytes
        # CPUs' compiler leaves what is computed on the way out of the peak.
        peak = max(stats.peak_memory_in_bytes, held + stats.temp_size_in_bytes)
        program = stats.generated_code_size_in_bytes
    trees = (arguments.frozen, arguments.trained, arguments.optimizer)
    frozen, trained, optimizer = map(bytes_on_device, trees)
    rest = peak - frozen - trained - optimizer - (program or 0)
    return Memory(frozen, trained, optimizer, max(0, rest), program, peak)
