"""The data that a compiled program sends between devices."""

import collections
import dataclasses
import itertools
import math
import re
from collections.abc import Mapping
from typing import Literal

import numpy as np

from poly_jax.planning.hlo import Instruction, Module, Shape
from poly_jax.planning.runs import runs

Network = Literal["ici", "dcn"]

KINDS = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute")
_TRANSFER = re.compile(r'_xla_megascale_transfer_type="(\w+)"')
_IOTA = re.compile(r"replica_groups=\[([\d,]+)\]<=\[([\d,]+)\](?:T\(([\d,]+)\))?")
_LISTED = re.compile(r"(?:replica_groups|source_target_pairs)=\{(\{[\d,]*\}(?:,\{[\d,]*\})*)\}")
_MESH = re.compile(r"replica_groups=mesh\[([^\]]*)\]\s*\{([^}]*)\}")
# XLA writes what it has joined as PREFIX/(A:B:C). No other part of a path begins with a parenthesis.
_JOINED = re.compile(r"(?P<prefix>^|/)\((?P<paths>.*)\)$")
_CHAIN = re.compile(r'chain_id="(\d+)"')
_LONGEST_PATH = 30
_LONGEST_SOURCE = 100
# Control flow, and private methods of modules, which follow their module.
_NOT_MODULES = re.compile(r"while|body|closed_call|checkpoint|rematted_computation|\w+\._\w+")


@dataclasses.dataclass(frozen=True)
class Collective:
    """Operations of one kind on arrays of one shape, from one place of the program.

    Attributes:
      kind: one of `KINDS`.
      count: number of such operations in a step.
      bytes: bytes of the whole arrays of all of them, on each device: the result of an all-gather, the
        operand of a reduce-scatter.
      shape: dtype and shape of the array; of the largest one where an operation combines several.
      source: path of the modules and functions that need it.
      network: "ici" inside a slice, "dcn" between slices.
      arrays: number of arrays that one operation combines.
    """

    kind: str
    count: int
    bytes: int
    shape: str
    source: str
    network: Network
    arrays: int = 1

    @property
    def sides(self) -> tuple[int, ...]:
        """The length of each axis of the array."""
        return tuple(int(side) for side in self.shape[self.shape.index("[") + 1 : -1].split(",") if side)


def collectives(module: Module, devices_per_slice: int) -> list[Collective]:
    """List what a step sends, the most bytes first.

    Args:
      module: the compiled step.
      devices_per_slice: number of devices of a slice, which are consecutive in the program's numbering.
    """
    found: dict[tuple[str, str, str, Network, int], list[int]] = collections.defaultdict(lambda: [0, 0])
    chains: set[str] = set()
    for instruction, around, times in runs(module):
        # The compiler for TPUs divides an operation into a chain of pieces, between which it computes. Each
        # piece is in another fusion, and names the whole operation.
        chain = _CHAIN.search(instruction.rest)
        if chain is not None:
            if chain[1] in chains:
                continue
            chains.add(chain[1])
        kind, network = _kind(instruction, devices_per_slice)
        if kind is None:
            continue
        arrays = _arrays(instruction, around, kind)
        if not arrays:
            continue
        largest = max(arrays, key=lambda array: array.bytes)
        key = (kind, str(largest), _source(instruction, around), network, len(arrays))
        found[key][0] += times
        found[key][1] += times * sum(array.bytes for array in arrays)
    listed = [
        Collective(kind, count, size, shape, source, network, arrays)
        for (kind, shape, source, network, arrays), (count, size) in found.items()
    ]
    return sorted(listed, key=lambda each: (-each.bytes, each.kind, each.shape, each.source))


def _kind(instruction: Instruction, devices_per_slice: int) -> tuple[str | None, Network]:
    if instruction.opcode == "send":
        # The compiler for TPUs turns what crosses slices into transfers between the hosts.
        transfer = _TRANSFER.search(instruction.rest)
        return (transfer[1].lower().replace("_", "-") if transfer else None), "dcn"
    kind = instruction.opcode.removesuffix("-start")
    if kind not in KINDS:
        return None, "ici"
    groups = device_groups(instruction.rest)
    if all(len(group) == 1 for group in groups) and groups:
        return None, "ici"
    crosses = any(len({number // devices_per_slice for number in group}) > 1 for group in groups)
    return kind, "dcn" if crosses else "ici"


def device_groups(attributes: str) -> list[tuple[int, ...]]:
    """The numbers of the devices that exchange data with one another; empty for all devices.

    Args:
      attributes: attributes of a collective, in one of HLO's three notations of groups.
    """
    if found := _IOTA.search(attributes):
        groups, dimensions = _numbers(found[1]), _numbers(found[2])
        order = _numbers(found[3]) if found[3] else range(len(dimensions))
        numbers = np.arange(math.prod(dimensions)).reshape(dimensions).transpose(order)
        return [tuple(map(int, group)) for group in numbers.reshape(groups[0], -1)]
    if found := _LISTED.search(attributes):
        return [tuple(_numbers(group)) for group in re.findall(r"\{([\d,]+)\}", found[1])]
    if found := _MESH.search(attributes):
        sizes = {name: int(size) for name, size in re.findall(r"'(\w+)'=(\d+)", found[1])}
        together = re.findall(r"'(\w+)'", found[2])
        apart = [name for name in sizes if name not in together]
        order = [list(sizes).index(name) for name in (*apart, *together)]
        numbers = np.arange(math.prod(sizes.values())).reshape(tuple(sizes.values())).transpose(order)
        return [tuple(map(int, group)) for group in numbers.reshape(math.prod(sizes[n] for n in apart), -1)]
    return []


def _numbers(text: str) -> list[int]:
    return [int(number) for number in text.split(",") if number]


def _arrays(instruction: Instruction, around: Mapping[str, Instruction], kind: str) -> list[Shape]:
    """The whole arrays that an operation makes or takes."""
    count = len(instruction.operands)
    if instruction.opcode == "send":
        return list(instruction.shapes[:1])
    if kind == "reduce-scatter":
        known = [around[name].shapes for name in instruction.operands if name in around]
        return list(itertools.chain.from_iterable(known))
    if instruction.opcode.endswith("-start") and kind != "all-reduce":
        # The result of a start has the operands before the results.
        return list(instruction.shapes[count : 2 * count])
    return list(instruction.shapes)


def _source(instruction: Instruction, around: Mapping[str, Instruction]) -> str:
    """The path of the instruction, or of the first one before it that has one."""
    for _ in range(_LONGEST_PATH):
        if instruction.op_name or not instruction.operands or instruction.operands[0] not in around:
            break
        instruction = around[instruction.operands[0]]
    return readable_source(instruction.op_name)


def _first_path(joined: re.Match[str]) -> str:
    paths = joined["paths"].split(":")
    return joined["prefix"] + next((path for path in paths if "/" in path), paths[0])


def readable_source(op_name: str) -> str:
    """Shorten a path of JAX's functions to modules, with "forward" and "backward" for differentiation."""
    parts = []
    joined = _JOINED.sub(_first_path, re.sub(r"jit\([^/]*\)/", "", op_name))
    for part in joined.split("/"):
        if re.fullmatch(r"transpose\(jvp\(.*\)\)|transpose\(.*\)", part):
            part = "backward"
        elif re.fullmatch(r"jvp\(.*\)", part):
            part = "forward"
        if not _NOT_MODULES.fullmatch(part):
            parts.append(part)
    readable = "/".join(parts)
    # An operation that XLA has combined from many may have the paths of all of them.
    return readable if len(readable) <= _LONGEST_SOURCE else readable[:_LONGEST_SOURCE] + "..."
