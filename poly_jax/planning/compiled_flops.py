"""Counts the operations of a compiled program's matrix products on one device."""

import math
import re
from collections.abc import Mapping

from poly_jax.planning.hlo import Instruction, Module, Shape
from poly_jax.planning.runs import runs


def compiled_flops(module: Module) -> int:
    """Count a multiplication and an addition as two, and a loop's body as often as it runs.

    Where this is more than the traced program's count over the number of devices, devices repeat each other's
    work.
    """
    return sum(times * _flops(instruction, around) for instruction, around, times in runs(module))


def _flops(instruction: Instruction, around: Mapping[str, Instruction]) -> int:
    if instruction.opcode not in ("dot", "convolution"):
        return 0
    left, right = (_shape(around, name) for name in instruction.operands[:2])
    if instruction.opcode == "dot":
        contracted = (instruction.attribute("lhs_contracting_dims") or "").split(",")
        inner = math.prod(left.sides[int(axis)] for axis in contracted if axis)
        return 2 * math.prod(instruction.shapes[0].sides) * inner
    return _convolution(instruction, left, right)


def _shape(around: Mapping[str, Instruction], name: str) -> Shape:
    return around[name].shapes[0]


def _convolution(instruction: Instruction, left: Shape, right: Shape) -> int:
    """Operations of a convolution, the form that TPUs' compiler gives matrix products.

    An axis of batches becomes a window that is dilated so that one place of it meets data. Only such places
    count.
    """
    labels = instruction.attribute("dim_labels")
    assert labels is not None
    data, kernel, out = re.split(r"_|->", labels)
    result = instruction.shapes[0]
    total = 2 * right.sides[kernel.index("i")]
    total *= result.sides[out.index("b")] * result.sides[out.index("f")]
    window = _window(instruction.attribute("window") or "")
    for number, axis in enumerate(sorted(label for label in out if label.isdigit())):
        setting = {name: values[number] for name, values in window.items()}
        total *= _meetings(
            left.sides[data.index(axis)],
            right.sides[kernel.index(axis)],
            result.sides[out.index(axis)],
            setting,
        )
    return total


def _window(text: str) -> dict[str, list[str]]:
    return {name: value.split("x") for name, value in (part.split("=") for part in text.split())}


def _meetings(data: int, kernel: int, out: int, setting: Mapping[str, str]) -> int:
    """Number of pairs of a result's place and a kernel's place that meet data, along one axis."""
    stride, before = int(setting.get("stride", 1)), int(setting.get("pad", "0_0").split("_")[0])
    spread, apart = int(setting.get("lhs_dilate", 1)), int(setting.get("rhs_dilate", 1))
    places = (o * stride + k * apart - before for o in range(out) for k in range(kernel))
    return sum(place % spread == 0 and 0 <= place // spread < data for place in places)
