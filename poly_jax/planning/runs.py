"""The number of times that each instruction of a compiled program runs."""

import re
from collections.abc import Iterator, Mapping

from poly_jax.planning.hlo import Instruction, Module

_KNOWN_TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"\}')
_PASSED_ON = ("copy", "bitcast", "convert")


def runs(module: Module) -> Iterator[tuple[Instruction, dict[str, Instruction], int]]:
    """Yield each instruction that runs, the computation around it, and how often it runs.

    Of the branches of a conditional, all count. A loop whose number of iterations is decided while it runs
    counts with the most that its condition allows.
    """
    yield from _runs(module, module.entry, 1)


def _runs(module: Module, name: str, times: int) -> Iterator[tuple[Instruction, dict[str, Instruction], int]]:
    computation = module.computations[name]
    for instruction in computation.values():
        yield instruction, computation, times
        inner = times
        if instruction.opcode == "while":
            inner *= trips(module, instruction, computation)
        for called in instruction.called():
            yield from _runs(module, called, inner)


def trips(module: Module, loop: Instruction, around: Mapping[str, Instruction]) -> int:
    """Return the number of iterations of a `while`.

    The compiler for CPUs writes it down. That for TPUs does not: there it follows from the constant that the
    condition compares the loop's counter with, from what the body adds to the counter, and from its first
    value. Where these are not found, they are the largest constant of the condition, 1 and 0.

    Args:
      module: the program.
      loop: the `while`.
      around: the computation that it is in.
    """
    if known := _KNOWN_TRIPS.search(loop.rest):
        return int(known[1])
    condition = (loop.attribute("condition") or "").lstrip("%")
    body = module.computations.get((loop.attribute("body") or "").lstrip("%"), {})
    found = _counter(module.computations.get(condition, {}))
    if found is None:
        return max(_integers(module, condition), default=1)
    place, end = found
    first = _literal(_element(around, loop.operands[0], place)) or 0
    root = next((each for each in body.values() if each.is_root), None)
    step = _added(body, root.operands[place], place) if root is not None else None
    return max(1, -(-(end - first) // (step or 1)))


def _counter(condition: Mapping[str, Instruction]) -> tuple[int, int] | None:
    """The place of a loop's counter in its state, and the number that it stays below."""
    root = next((each for each in condition.values() if each.is_root), None)
    if root is None or root.opcode != "compare" or root.attribute("direction") != "LT":
        return None
    counter, end = (condition.get(name) for name in root.operands)
    number = _literal(end)
    place = counter.attribute("index") if counter is not None else None
    return None if place is None or number is None else (int(place), number)


def _element(around: Mapping[str, Instruction], state: str, place: int) -> Instruction | None:
    made = around.get(state)
    return around.get(made.operands[place]) if made is not None and made.opcode == "tuple" else None


def _added(body: Mapping[str, Instruction], name: str, place: int) -> int | None:
    """The number that the body adds to the counter; None where that cannot be followed."""
    instruction = body.get(name)
    if instruction is None:
        return None
    if instruction.opcode in _PASSED_ON:
        return _added(body, instruction.operands[0], place)
    if instruction.opcode == "get-tuple-element":
        return 0 if instruction.attribute("index") == str(place) else None
    if instruction.opcode != "add":
        return None
    for one, other in (instruction.operands, instruction.operands[::-1]):
        number, rest = _literal(body.get(one)), _added(body, other, place)
        if number is not None and rest is not None:
            return number + rest
    return None


def _literal(instruction: Instruction | None) -> int | None:
    """The value of a constant integer."""
    if instruction is None or instruction.opcode != "constant":
        return None
    return int(instruction.inside) if re.fullmatch(r"-?\d+", instruction.inside) else None


def _integers(module: Module, name: str) -> Iterator[int]:
    """The positive integers among the scalar constants of a computation and of those that it calls."""
    for instruction in module.computations.get(name, {}).values():
        number = None if instruction.shapes[:1] and instruction.shapes[0].sides else _literal(instruction)
        if number is not None and number > 0:
            yield number
        for called in instruction.called():
            yield from _integers(module, called)
