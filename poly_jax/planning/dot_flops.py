"""Counts the operations of a program's matrix products, with loops as often as they run."""

import dataclasses
import math
from collections.abc import Iterator
from typing import Any

from jax.extend.core import ClosedJaxpr, Jaxpr


@dataclasses.dataclass(frozen=True)
class Product:
    """A matrix product of a program.

    Attributes:
      flops: operations of one call on all devices: a multiplication and an addition are two.
      calls: number of times that the program computes it.
      dtypes: names of the operands' dtypes.
      source: path of the modules and functions that it comes from.
    """

    flops: int
    calls: int
    dtypes: tuple[str, str]
    source: str


def products(jaxpr: Any, loop_calls: int = 1) -> list[Product]:
    """List the matrix products of a traced program.

    XLA's own count (`cost_analysis`) has the body of a loop once.

    Args:
      jaxpr: the program, as `jax.jit(...).trace(...).jaxpr` gives it.
      loop_calls: number of times that the body of a `while_loop` runs, which the program does not say. The
        lengths of scans are known.
    """
    return list(_products(jaxpr, 1, loop_calls))


def total_flops(found: list[Product]) -> int:
    """Operations of all calls of these products, on all devices."""
    return sum(product.flops * product.calls for product in found)


def _products(jaxpr: Any, calls: int, loop_calls: int) -> Iterator[Product]:
    body = jaxpr.jaxpr if isinstance(jaxpr, ClosedJaxpr) else jaxpr
    for equation in body.eqns:
        name, params = equation.primitive.name, equation.params
        if name == "dot_general":
            yield _product(equation, calls)
        elif name == "cond":
            branches = [list(_products(branch, calls, loop_calls)) for branch in params["branches"]]
            yield from max(branches, key=total_flops)
        else:
            inner = calls * _repetitions(name, params, loop_calls)
            for value in params.values():
                for child in value if isinstance(value, tuple | list) else (value,):
                    if isinstance(child, ClosedJaxpr | Jaxpr):
                        yield from _products(child, inner, loop_calls)


def _repetitions(name: str, params: dict[str, Any], loop_calls: int) -> int:
    if name == "scan":
        return params["length"]
    if name == "while":
        return loop_calls
    if name == "shard_map":
        # Inside, shapes are per device. jax 0.10 gives the parameter this name.
        return math.prod(params["mesh"].shape[axis] for axis in params["newly_manual_axes"])
    return 1


def _product(equation: Any, calls: int) -> Product:
    left, right = (variable.aval for variable in equation.invars)
    (contracted, _), _ = equation.params["dimension_numbers"]
    flops = 2 * equation.outvars[0].aval.size * math.prod(left.shape[axis] for axis in contracted)
    source = str(equation.source_info.name_stack)
    return Product(flops, calls, (left.dtype.name, right.dtype.name), source)
