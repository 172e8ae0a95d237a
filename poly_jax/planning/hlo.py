"""Reads the text of a compiled program (HLO)."""

import dataclasses
import functools
import re

_COMPUTATION = re.compile(r"^(ENTRY )?%?([\w.\-]+) (?:\(.*)?\{$")
_INSTRUCTION = re.compile(r"^\s+(ROOT )?%?([\w.\-]+) = (.*)$")
_OPCODE = re.compile(r"(?:^|\s)([a-z][a-z0-9\-]*)\(")
_COMMENT = re.compile(r"/\*.*?\*/")
_NAME = re.compile(r"%([\w.\-]+)")
_SHAPE = re.compile(r"\b([a-z]\w*)\[([\d,]*)\]")
_CALLED = re.compile(r"\b(body|calls|to_apply|branch_computations|true_computation|false_computation)=")
_OP_NAME = re.compile(r'op_name="((?:[^"\\]|\\.)*)"')
_BITS = re.compile(r"(?:[su]|bf|f|c)(\d+)")


@dataclasses.dataclass(frozen=True)
class Shape:
    """An array type.

    Attributes:
      dtype: HLO's name of the dtype, such as "bf16".
      sides: the length of each axis.
    """

    dtype: str
    sides: tuple[int, ...]

    @property
    def bytes(self) -> int:
        """Bytes of the array without padding."""
        count = 1
        for side in self.sides:
            count *= side
        bits = _BITS.match(self.dtype)
        # pred, the only dtype of data without a number, takes a byte.
        return (count * int(bits[1]) + 7) // 8 if bits else count if self.dtype == "pred" else 0

    def __str__(self) -> str:
        return f"{self.dtype}[{','.join(map(str, self.sides))}]"


@dataclasses.dataclass(frozen=True)
class Instruction:
    """One instruction.

    Attributes:
      name: its name.
      shapes: the arrays of its result, of which a tuple has several.
      opcode: its operation, such as "all-gather".
      operands: names of the instructions that it reads.
      inside: the text between its parentheses.
      rest: the text after them: its attributes.
      is_root: whether it is the result of its computation.
    """

    name: str
    shapes: tuple[Shape, ...]
    opcode: str
    operands: tuple[str, ...]
    inside: str
    rest: str
    is_root: bool

    @property
    def op_name(self) -> str:
        """Path of the JAX functions that it comes from; "" where it is not known."""
        found = _OP_NAME.search(self.rest)
        return found[1] if found else ""

    def called(self) -> list[str]:
        """Names of the computations that it runs, apart from those that combine two numbers."""
        names: list[str] = []
        for found in _CALLED.finditer(self.rest):
            if found[1] == "to_apply" and self.opcode != "call":
                continue
            value = self.rest[found.end() :]
            names += _NAME.findall(value[: value.index("}")] if value[0] == "{" else value.split(",")[0])
        return names

    def attribute(self, name: str) -> str | None:
        """The value of an attribute that is one word or one pair of braces."""
        found = re.search(rf"\b{name}=(\{{[^}}]*\}}|[^\s,]+)", self.rest)
        return found[1].strip("{}") if found else None


@dataclasses.dataclass(frozen=True)
class Module:
    """A compiled program.

    Attributes:
      computations: the instructions of each computation, by its name.
      entry: name of the computation that the program is.
    """

    computations: dict[str, dict[str, Instruction]]
    entry: str


def read_hlo(text: str) -> Module:
    """Read the text of a compiled program, as `compiled.as_text()` gives it.

    Raises:
      ValueError: the text has no entry computation.
    """
    computations: dict[str, dict[str, Instruction]] = {}
    entry, current = None, None
    for line in text.splitlines():
        if found := _COMPUTATION.match(line):
            current = computations.setdefault(found[2], {})
            entry = found[2] if found[1] else entry
        elif current is not None and (found := _INSTRUCTION.match(line)):
            instruction = _instruction(found[2], _COMMENT.sub("", found[3]), bool(found[1]))
            if instruction is not None:
                current[instruction.name] = instruction
        elif line.startswith("}"):
            current = None
    if entry is None:
        raise ValueError("the text is not a compiled program: it has no line that begins with ENTRY")
    return Module(computations, entry)


def _instruction(name: str, text: str, is_root: bool) -> Instruction | None:
    found = _OPCODE.search(text)
    if found is None:
        return None
    depth, end = 1, found.end()
    while depth and end < len(text):
        depth += {"(": 1, ")": -1}.get(text[end], 0)
        end += 1
    inside = text[found.end() : end - 1]
    return Instruction(
        name,
        shapes(text[: found.start()]),
        found[1],
        tuple(_NAME.findall(inside)),
        inside,
        text[end:],
        is_root,
    )


@functools.lru_cache(maxsize=4096)
def shapes(text: str) -> tuple[Shape, ...]:
    """Read the arrays in the text of a type, such as `(f32[2,3]{1,0}, s32[])`."""
    return tuple(
        Shape(dtype, tuple(int(side) for side in sides.split(",") if side))
        for dtype, sides in _SHAPE.findall(text)
    )
