"""What the path of a parameter says: whether it is a skill's or a router's, of which layer, and its axes.

Paths are '/'-joined. The adapters' part of the tree hangs beside the backbone, which has T5X's names:

    encoder/layers_0/attention/query/kernel                 the frozen kernel of an adapted map
    encoder/layers_0/attention/query/skills/lora_a          a skill of the inventory    [splits, skills, ...]
    encoder/layers_0/attention/query/skills/private/lora_a  each task's own skill       [splits, tasks, ...]
    encoder/layers_0/attention/query/router/logits          a router                   [tasks, splits, skills]

Where the layers of a stack are scanned, `layers` stands for `layers_0`, `layers_1`, ... and every array below
it has the layers on its first axis. A router sits where the granularity of the adapters says, such as
`encoder/layers_0/router` or `router`.
"""

import re
from collections.abc import Callable, Iterable
from typing import Literal

SKILLS = "skills"
ROUTER = "router"
PRIVATE = "private"
STACKED = "layers"
STACKS = ("encoder", "decoder")
MODEL = "model"
"""The name of the place above both stacks, where the router of the whole model is."""

Trainable = Literal["adapters", "skills", "router", "all"]
Axis = Literal["tasks", "splits", "skills"]
Granularity = Literal["fine", "layer", "block", "stack", "coarse"]

_LAYER = re.compile(r"layers_(\d+)")
_LAYER_OF_STACK = re.compile(r"(encoder|decoder)/layers_\d+(?=/|$)")
# How many parts of a map's path the place of its router keeps.
_KEPT: dict[str, int | None] = {"fine": None, "layer": -1, "block": 2, "stack": 1, "coarse": 0}


def is_router(path: str) -> bool:
    """Whether a parameter belongs to a router."""
    return ROUTER in path.split("/")


def is_skill(path: str) -> bool:
    """Whether a parameter belongs to a skill, be it of the inventory or of one task alone."""
    return SKILLS in path.split("/")


def is_private(path: str) -> bool:
    """Whether a parameter belongs to the skills that each task has for itself beside the inventory."""
    return is_skill(path) and PRIVATE in path.split("/")


def is_inventory(path: str) -> bool:
    """Whether a parameter belongs to the skills that a router mixes."""
    return is_skill(path) and not is_private(path)


def is_adapter_parameter(path: str) -> bool:
    """Whether a parameter belongs to a skill or a router, rather than to the backbone."""
    return is_skill(path) or is_router(path)


def selects(trainable: Trainable) -> Callable[[str], bool]:
    """The test of whether a parameter is among the ones that are trained."""
    tests: dict[Trainable, Callable[[str], bool]] = {
        "all": lambda path: True,
        "adapters": is_adapter_parameter,
        "skills": is_skill,
        "router": is_router,
    }
    return tests[trainable]


def leaf(path: str) -> str:
    """The parameter's own name, such as `lora_a` or `logits`."""
    return path.rpartition("/")[2]


def module(path: str) -> str:
    """The path of the module that owns a parameter: everything above its own name."""
    return path.rpartition("/")[0]


def adapted_map(path: str) -> str:
    """The map that a skill's parameter adapts, such as `encoder/layers_0/attention/query`."""
    parts = path.split("/")
    return "/".join(parts[: parts.index(SKILLS)])


def router_place(path: str) -> str:
    """The place of the router that a parameter belongs to; `MODEL` for the router of the whole model."""
    parts = path.split("/")
    return "/".join(parts[: parts.index(ROUTER)]) or MODEL


def skills_of(adapted: str, private: bool = False) -> str:
    """The module of the skills at an adapted map: the inventory, or with `private` each task's own."""
    return "/".join([adapted, SKILLS, *([PRIVATE] if private else [])])


def router_of(adapted: str, granularity: Granularity) -> str:
    """The module of the router that serves an adapted map, such as `encoder/layers_0/mlp/router`."""
    return "/".join([*adapted.split("/")[: _KEPT[granularity]], ROUTER])


def is_stacked(path: str) -> bool:
    """Whether an array has the layers of its stack on its first axis."""
    return STACKED in path.split("/")


def axis(path: str, name: Axis) -> int | None:
    """Which axis of a skill's or router's array is its tasks, splits or skills; None where it has none.

    It is counted from the front, after the axis of stacked layers where there is one.
    """
    # Each task has one skill of its own, so that the axis of these skills is that of tasks.
    axes = ("tasks", "splits", "skills") if is_router(path) else ("splits", "skills")
    if is_private(path):
        axes = ("splits", "tasks")
    if not is_adapter_parameter(path) or name not in axes:
        return None
    return axes.index(name) + is_stacked(path)


def layer_number(part: str) -> int | None:
    """The number in a part of a path such as `layers_3`; None of another part."""
    found = _LAYER.fullmatch(part)
    return int(found[1]) if found else None


def numbered_layer(number: int) -> str:
    """The part of a path that stands for one layer of a stack, such as `layers_3`."""
    return f"{STACKED}_{number}"


def in_layer(path: str, number: int) -> str:
    """The path of one layer's part of a stacked array."""
    return "/".join(numbered_layer(number) if part == STACKED else part for part in path.split("/"))


def layer_of(path: str) -> str:
    """The layer that holds a place or a parameter, such as `encoder/layers_0`.

    What is in no layer belongs to its stack, and what is in neither stack to `MODEL`.
    """
    if found := _LAYER_OF_STACK.match(path):
        return found[0]
    stack = path.split("/")[0]
    return stack if stack in STACKS else MODEL


def in_order(paths: Iterable[str]) -> list[str]:
    """Paths from the input of the model to its output: the encoder first, layer 2 before layer 10."""

    def key(path: str) -> tuple:
        parts = re.split(r"(\d+)", path)
        numbered = [int(part) if i % 2 else part for i, part in enumerate(parts)]
        stack = path.split("/")[0]
        return (STACKS.index(stack) if stack in STACKS else -1, *numbered)

    return sorted(paths, key=key)
