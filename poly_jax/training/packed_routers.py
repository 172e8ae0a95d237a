"""The parameters of all routers as one array for each name, while a run trains them.

XLA takes milliseconds for each operation that it compiles. A router of every site has a small table of its
own, and a step has five operations for each: the cut out of the gradients that are computed together, its
part of their norm, its two moments and its change. Packed, all tables together have the last four, and no
gradient is cut. Checkpoints and evaluations have each router's parameters in its own place.
"""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec, Sharding
from jax.tree_util import DictKey
from jaxtyping import Array, Float, Int

from poly_jax.model.joint_routing import PACKED, joint_tables
from poly_jax.training.optimizer import Elementwise
from poly_jax.training.update import TrainState, Update, start
from poly_jax.weights.parameter_names import module
from poly_jax.weights.tree import flatten, merge, unflatten

Path = tuple[Any, ...]
Tree = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class PackedRouters:
    """The way from a training state, as checkpoints hold it, to the state that a step changes, and back.

    Attributes:
      update: the step on packed states.
      apart: structure of the states of checkpoints.
      packed: structure of packed states.
      sources: for each leaf of a packed state, the leaves of the other that it holds: several on a new first
        axis, or one that is not packed.
    """

    update: Update
    apart: Any
    packed: Any
    sources: tuple[tuple[int, ...], ...]

    def pack(self, state: TrainState) -> TrainState:
        """Pack a state of arrays, or of their shapes and shardings.

        As in a step, arrays of the state that was given cannot be used afterwards.
        """
        leaves = jax.tree.leaves(state)
        parts = ([leaves[source] for source in sources] for sources in self.sources)
        return jax.tree.unflatten(
            self.packed, [each[0] if len(each) == 1 else _stack(each) for each in parts]
        )

    def unpack(self, state: TrainState) -> TrainState:
        """Return the state with each router's parameters and moments in their own place."""
        leaves: dict[int, Any] = {}
        for whole, sources in zip(jax.tree.leaves(state), self.sources, strict=True):
            parts = [whole] if len(sources) == 1 else _cut(whole, len(sources))
            leaves.update(zip(sources, parts, strict=True))
        return jax.tree.unflatten(self.apart, [leaves[place] for place in range(len(leaves))])


def packed_routers(update: Update, state: TrainState, frozen: Tree) -> PackedRouters:
    """Find the routers of a run that can be packed.

    Nothing is packed where a router is frozen, or where the optimizer looks at whole arrays, as Adafactor.

    Args:
      update: the step.
      state: its first state, or the state's shapes.
      frozen: the frozen tree, of which only the names are read.
    """
    paths, apart = _paths(state)
    as_it_is = PackedRouters(update, apart, apart, tuple((place,) for place in range(len(paths))))
    routers = update.joint_routers(merge(frozen, state.trained))
    elementwise = isinstance(update.optimizer, Elementwise)
    if not elementwise or len(routers) < 2 or update.joint_routers(frozen):
        return as_it_is
    shapes = jax.eval_shape(lambda trained: _packed(trained, update, routers), state.trained)
    found, packed = _paths(jax.eval_shape(functools.partial(start, optimizer=update.optimizer), shapes))
    places = {path: place for place, path in enumerate(paths)}
    sources = tuple(tuple(places[source] for source in _sources(path, routers)) for path in found)
    return PackedRouters(dataclasses.replace(update, packed=routers), apart, packed, sources)


def _packed(trained: Tree, update: Update, routers: Sequence[str]) -> Tree:
    """The trained tree with the parameters of these routers packed."""
    assert update.model.adapters is not None
    tables = joint_tables(update.model.adapters, routers, trained)
    kept = {path: leaf for path, leaf in flatten(trained).items() if module(path) not in routers}
    return unflatten({**kept, **{f"{PACKED}/{name}": table for name, table in tables.items()}})


def _paths(state: TrainState) -> tuple[list[Path], Any]:
    leaves, structure = jax.tree_util.tree_flatten_with_path(state)
    return [path for path, _ in leaves], structure


def _sources(path: Path, routers: Sequence[str]) -> list[Path]:
    """The paths, in the state of a checkpoint, of what a leaf of a packed state holds."""
    keys, packed = list(path), _keys(PACKED)
    for place in range(len(keys)):
        if keys[place : place + len(packed)] == packed:
            after = keys[place + len(packed) :]
            return [(*keys[:place], *_keys(router), *after) for router in routers]
    return [path]


def _keys(path: str) -> list[DictKey]:
    return [DictKey(part) for part in path.split("/")]


def _stack(parts: Sequence[Any]) -> Any:
    place = _stacked(parts[0].sharding)
    if isinstance(parts[0], jax.ShapeDtypeStruct):
        return jax.ShapeDtypeStruct((len(parts), *parts[0].shape), parts[0].dtype, sharding=place)
    whole = _stacking(place)(parts)
    for part in parts:
        part.delete()
    return whole


def _stacked(place: Sharding) -> NamedSharding:
    """The sharding of arrays with one more axis in front of those that are sharded so."""
    assert isinstance(place, NamedSharding)
    return NamedSharding(place.mesh, PartitionSpec(None, *place.spec), memory_kind=place.memory_kind)


@functools.lru_cache(maxsize=8)
def _stacking(place: NamedSharding) -> Any:
    return jax.jit(lambda parts: jax.numpy.stack(parts), out_shardings=place)


def _cut(whole: Float[Array, "parts *shape"], count: int) -> list[Float[Array, "*shape"]]:
    place = whole.sharding
    assert isinstance(place, NamedSharding)
    own = NamedSharding(place.mesh, PartitionSpec(*place.spec[1:]), memory_kind=place.memory_kind)
    # The place is an argument, so that one program cuts all of them out.
    return [_cutting(own)(whole, np.int32(number)) for number in range(count)]


@functools.lru_cache(maxsize=8)
def _cutting(place: NamedSharding) -> Any:
    def cut(whole: Float[Array, "parts *shape"], number: Int[Array, ""]) -> Float[Array, "*shape"]:
        return jax.lax.dynamic_index_in_dim(whole, number, keepdims=False, allow_negative_indices=False)

    return jax.jit(cut, out_shardings=place)
