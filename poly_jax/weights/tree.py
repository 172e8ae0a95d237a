"""Parameter trees as nested dictionaries: flattening them to '/'-joined names and comparing them."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import traverse_util
from numpy.typing import DTypeLike

from poly_jax.errors import UserError

ParameterTree = dict[str, Any]

_LISTED = 10


def flatten(tree: Mapping[str, Any]) -> dict[str, Any]:
    """Return the leaves of a nested dictionary by their '/'-joined names, without empty branches."""
    return traverse_util.flatten_dict(dict(tree), sep="/")


def unflatten(leaves: Mapping[str, Any]) -> ParameterTree:
    """Make the nested dictionary whose leaves have these '/'-joined names."""
    return traverse_util.unflatten_dict(dict(leaves), sep="/")


def split(tree: Mapping[str, Any], selected: Callable[[str], bool]) -> tuple[ParameterTree, ParameterTree]:
    """Split a tree into the leaves whose '/'-joined names are selected, and the other leaves."""
    leaves = flatten(tree)
    inside = {name: leaf for name, leaf in leaves.items() if selected(name)}
    outside = {name: leaf for name, leaf in leaves.items() if name not in inside}
    return unflatten(inside), unflatten(outside)


def merge(*trees: Mapping[str, Any]) -> ParameterTree:
    """Merge the leaves of several trees; where two trees have a leaf of the same name, the later one wins."""
    leaves: dict[str, Any] = {}
    for tree in trees:
        leaves.update(flatten(tree))
    return unflatten(leaves)


def cast(array: np.ndarray, dtype: DTypeLike | None) -> np.ndarray:
    """Cast an array to `dtype`; keep it as it is where `dtype` is None or the array does not hold floats."""
    if dtype is None or not jnp.issubdtype(array.dtype, jnp.floating):
        return array
    return array.astype(dtype, copy=False)


def listing(names: Iterable[str]) -> str:
    """Join names on one line: all of them, or the first ten where there are more."""
    names = sorted(names)
    if len(names) <= _LISTED:
        return ", ".join(names)
    return f"first {_LISTED}: {', '.join(names[:_LISTED])}"


def check_tree(expected: Mapping[str, Any], got: Mapping[str, Any], source: object) -> None:
    """Check that a tree that was read has the parameters and shapes of the model.

    Args:
      expected: nested dictionary of the model's shapes: tuples, or anything with a `shape`.
      got: nested dictionary of the arrays that were read.
      source: name of their checkpoint, for the message.

    Raises:
      UserError: parameters are missing, unknown or have another shape. The message has the number of each
        kind and the first ten names, and both shapes where they differ.
    """
    shapes = {name: _shape(leaf) for name, leaf in flatten(expected).items()}
    found = {name: _shape(leaf) for name, leaf in flatten(got).items()}
    differing = [
        f"{name} is {list(found[name])} and the model has {list(shapes[name])}"
        for name in shapes.keys() & found.keys()
        if shapes[name] != found[name]
    ]
    findings = {
        "missing": shapes.keys() - found.keys(),
        "unknown": found.keys() - shapes.keys(),
        "of another shape": differing,
    }
    if any(findings.values()):
        text = "; ".join(
            f"{len(names)} {kind} ({listing(names)})" for kind, names in findings.items() if names
        )
        raise UserError(f"{source} does not fit the model; parameters: {text}")


def _shape(leaf: Any) -> tuple[int, ...]:
    return tuple(getattr(leaf, "shape", leaf))
