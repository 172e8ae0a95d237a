"""Tells collectives that move weights from those that change the sharding of activations."""

import itertools
import math
from collections.abc import Iterable, Mapping
from typing import Any, Literal

import jax
from jax.sharding import NamedSharding

from poly_jax.planning.collectives import Collective
from poly_jax.weights.parameter_names import is_stacked
from poly_jax.weights.tree import flatten

Moved = Literal["weights", "activations", "other"]

_MOVES = ("all-gather", "all-to-all", "collective-permute")
Sides = tuple[int, ...]


class Contents:
    """Infers from a collective's shape what it moves, which a compiled program does not say."""

    def __init__(self, parameters: Mapping[str, Any], batch: Mapping[str, Any]) -> None:
        """Learn the shapes of a program's arrays.

        Args:
          parameters: nested dict with shape and sharding of each parameter.
          batch: shape of each array of the batch, its rows first.
        """
        self._weights = set(
            itertools.chain.from_iterable(
                _variants(leaf, is_stacked(name)) for name, leaf in flatten(parameters).items()
            )
        )
        # Compilers cut a vector into pieces of any shape.
        self._vectors = {
            leaf.shape[-1]
            for name, leaf in flatten(parameters).items()
            if len(leaf.shape) - is_stacked(name) == 1
        }
        arrays = jax.tree.leaves(dict(batch))
        self._rows = arrays[0].shape[0]
        self._lengths = {length for array in arrays for length in array.shape[1:]}

    def moved(self, collective: Collective) -> Moved:
        """Return what a collective moves: the shape of a parameter or its gradient decides first."""
        sides = tuple(side for side in collective.sides if side != 1)
        if tuple(sorted(sides)) in self._weights or math.prod(sides) in self._vectors:
            return "weights"
        if not collective.shape.startswith(("f", "bf")):
            return "other"
        for place, side in enumerate(sides):
            rows = self._rows % side == 0 and self._lengths & set(sides[place + 1 :])
            tokens = len(sides) == 2 and any(self._rows_of(side, length) for length in self._lengths)
            if rows or tokens:
                return "activations"
        return "other"

    def _rows_of(self, side: int, length: int) -> int:
        """The number of rows whose tokens lie behind one another on an axis; 0 if they do not."""
        rows, rest = divmod(side, length)
        return rows if rows and not rest and self._rows % rows == 0 else 0

    def reshards(self, found: Iterable[Collective]) -> list[Collective]:
        """The collectives that only change how activations are sharded.

        Tensor parallelism needs all-reduces of activations. It does not need these.
        """
        return [each for each in found if each.kind in _MOVES and self.moved(each) == "activations"]


def _variants(leaf: Any, stacked: bool) -> Iterable[Sides]:
    """The sorted sides of a parameter, whole or sharded on any of its axes, without axes of length 1."""
    sharding: NamedSharding = leaf.sharding
    shard = sharding.shard_shape(leaf.shape)
    for sides in itertools.product(*({a, b} for a, b in zip(leaf.shape, shard, strict=True))):
        # A scan's body has one layer of a stack.
        for layer in (sides, sides[1:]) if stacked else (sides,):
            kept = [side for side in layer if side != 1]
            yield tuple(sorted(kept))
            # Compilers join neighbouring axes.
            for place in range(len(kept) - 1):
                joined = [*kept[:place], math.prod(kept[place : place + 2]), *kept[place + 2 :]]
                yield tuple(sorted(joined))
