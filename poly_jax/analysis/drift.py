"""The distance of trained parameters from their initial values."""

import dataclasses
import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import TypeVar

import numpy as np
from jaxtyping import Float

from poly_jax.weights.parameter_names import axis as axis_of
from poly_jax.weights.parameter_names import is_inventory, is_private, is_router, layer_of, leaf

Arrays = Mapping[str, np.ndarray]
Key = TypeVar("Key", bound=Hashable)


@dataclasses.dataclass(frozen=True)
class Drift:
    """Sums over parameters before and after training; the sums of several arrays add up.

    Attributes:
      count: number of parameters.
      change: sum of squares of the change.
      before: sum of squares of the initial values.
      after: sum of squares of the trained values.
      product: sum of products of initial and trained values.
    """

    count: int = 0
    change: float = 0.0
    before: float = 0.0
    after: float = 0.0
    product: float = 0.0

    @classmethod
    def of(cls, before: Float[np.ndarray, "*shape"], after: Float[np.ndarray, "*shape"]) -> "Drift":
        """The drift of one array."""
        start, end = np.asarray(before, np.float64), np.asarray(after, np.float64)
        sums = (np.sum((end - start) ** 2), np.sum(start**2), np.sum(end**2), np.sum(start * end))
        return cls(start.size, *map(float, sums))

    def __add__(self, other: "Drift") -> "Drift":
        pairs = zip(dataclasses.astuple(self), dataclasses.astuple(other), strict=True)
        return Drift(*(a + b for a, b in pairs))

    @property
    def rms(self) -> float:
        """Root mean square of the change, in the parameters' own units."""
        return math.sqrt(self.change / self.count)

    @property
    def relative(self) -> float:
        """Norm of the change over the norm of the initial values; NaN where these are 0."""
        return math.sqrt(self.change / self.before) if self.before else math.nan

    @property
    def cosine(self) -> float:
        """Cosine of the trained and the initial values; NaN where either norm is 0."""
        scale = math.sqrt(self.before) * math.sqrt(self.after)
        return self.product / scale if scale else math.nan


def kind_of(path: str) -> str:
    """The kind of a parameter: "router logits", "skill lora_a", or "own skill lora_a" of a private skill."""
    owner = "router" if is_router(path) else "own skill" if is_private(path) else "skill"
    return f"{owner} {leaf(path)}"


def by_layer(initial: Arrays, trained: Arrays) -> dict[tuple[str, str], Drift]:
    """The drift of every kind of parameter in every layer.

    Args:
      initial: initial values by '/'-joined name, with layers apart.
      trained: trained values of the same names, and possibly of others.
    """
    return _summed(initial, trained, lambda path: (kind_of(path), layer_of(path)))


def by_kind(initial: Arrays, trained: Arrays) -> dict[str, Drift]:
    """The drift of every kind of parameter."""
    return _summed(initial, trained, kind_of)


def by_task(
    initial: Arrays, trained: Arrays, router_axes: Mapping[str, Sequence[str]]
) -> dict[str, Float[np.ndarray, "tasks"]]:
    """RMS change of each task's own parameters, by kind: routers' rows and private skills.

    Args:
      initial: initial values by '/'-joined name, with layers apart.
      trained: trained values of the same names, and possibly of others.
      router_axes: logical axis names of the router's parameters, by their names.
    """
    axes = {
        path: axis_of(path, "tasks", router_axes.get(leaf(path)) if is_router(path) else None)
        for path in initial
    }
    return _along(initial, trained, axes)


def by_skill(initial: Arrays, trained: Arrays, n_skills: int) -> dict[str, Float[np.ndarray, "skills"]]:
    """RMS change of each skill of the inventory, by the kind of its parameters."""
    axes = {path: axis_of(path, "skills") for path in initial if is_inventory(path)}
    # All skills of MTL-LoRA share one A, whose axis of skills has size 1.
    own = {
        path: axis
        for path, axis in axes.items()
        if axis is not None and initial[path].shape[axis] == n_skills
    }
    return _along(initial, trained, own)


def _summed(initial: Arrays, trained: Arrays, key: Callable[[str], Key]) -> dict[Key, Drift]:
    found: dict[Key, Drift] = {}
    for path, before in initial.items():
        found[key(path)] = found.get(key(path), Drift()) + Drift.of(before, trained[path])
    return found


def _along(
    initial: Arrays, trained: Arrays, axes: Mapping[str, int | None]
) -> dict[str, Float[np.ndarray, "size"]]:
    """RMS change along one axis of each array, by kind; arrays without an axis do not count."""
    squares: dict[str, Float[np.ndarray, "size"]] = {}
    counts: dict[str, int] = {}
    for path, axis in axes.items():
        if axis is None:
            continue
        kind, before = kind_of(path), initial[path]
        square = (np.asarray(trained[path], np.float64) - np.asarray(before, np.float64)) ** 2
        rows = np.moveaxis(square, axis, 0).reshape(before.shape[axis], -1)
        squares[kind] = squares.get(kind, np.zeros(len(rows))) + rows.sum(1)
        counts[kind] = counts.get(kind, 0) + rows.shape[1]
    return {kind: np.sqrt(total / counts[kind]) for kind, total in squares.items()}
