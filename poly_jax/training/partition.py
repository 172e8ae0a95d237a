"""Which parameters are trained, and the two trees that follow: trained and frozen."""

from collections.abc import Callable
from typing import Any, Literal

from flax import traverse_util

Tree = dict[str, Any]
Trainable = Literal["adapters", "skills", "router", "all"]

_PARTS: dict[str, tuple[str, ...]] = {
    "skills": ("skills",),
    "router": ("router",),
    "adapters": ("skills", "router"),
}


def is_router(path: str) -> bool:
    """Whether a '/'-joined parameter path belongs to a router."""
    return "router" in path.split("/")


def is_adapter(path: str) -> bool:
    """Whether a '/'-joined parameter path belongs to a skill or a router."""
    return not {"skills", "router"}.isdisjoint(path.split("/"))


def is_skill(path: str) -> bool:
    """Whether a '/'-joined parameter path belongs to a skill."""
    return "skills" in path.split("/")


def is_inventory(path: str) -> bool:
    """Whether a '/'-joined parameter path belongs to the skills that tasks share, not to private ones."""
    return is_skill(path) and "private" not in path.split("/")


def selects(trainable: Trainable) -> Callable[[str], bool]:
    """The test on parameter paths that a choice of trained parameters stands for."""
    if trainable == "all":
        return lambda path: True
    parts = set(_PARTS[trainable])
    return lambda path: not parts.isdisjoint(path.split("/"))


def split(tree: Tree, selected: Callable[[str], bool]) -> tuple[Tree, Tree]:
    """The subtree of the selected parameters and the subtree of the others."""
    flat = traverse_util.flatten_dict(tree, sep="/")
    inside = {path: leaf for path, leaf in flat.items() if selected(path)}
    outside = {path: leaf for path, leaf in flat.items() if path not in inside}
    return traverse_util.unflatten_dict(inside, sep="/"), traverse_util.unflatten_dict(outside, sep="/")


def merge(*trees: Tree) -> Tree:
    """One tree out of several; where two hold the same parameter, the later one's counts."""
    flat: dict[str, Any] = {}
    for tree in trees:
        flat.update(traverse_util.flatten_dict(tree, sep="/"))
    return traverse_util.unflatten_dict(flat, sep="/")
