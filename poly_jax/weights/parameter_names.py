"""The vocabulary of parameter paths: which belong to skills or routers, and their layers and axes.

Paths are '/'-joined. A site, such as `encoder/attention/query`, stands for one frozen linear map in every
layer of its stack. The parameters of adapters lie beside the backbone's, which have T5X's names:

    encoder/layers_0/attention/query/kernel                 the frozen kernel of an adapted map
    encoder/layers_0/attention/query/skills/lora_a          a skill of the inventory    [splits, skills, ...]
    encoder/layers_0/attention/query/skills/private/lora_a  each task's own skill       [splits, tasks, ...]
    encoder/layers_0/attention/query/skills/private/lora_lambda  each task's part of a skill [1, tasks, ...]
    encoder/layers_0/attention/query/router/logits          a router                   [tasks, splits, skills]
    encoder/layers_0/attention/query/input_router/kernel    a router that reads inputs [skills, width]

Where the layers of a stack are scanned, `layers` stands for `layers_0`, `layers_1`, ... and every array below
it has the layers on its first axis. The place of a router depends on the granularity of the adapters, such as
`encoder/layers_0/router` or `router`.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Literal, TypeVar

SKILLS = "skills"
ROUTER = "router"
INPUT_ROUTER = "input_router"
"""The name of a router that reads the input of its own map. Its arrays begin with the axis of skills."""
PRIVATE = "private"
STACKED = "layers"
STACKS = ("encoder", "decoder")
MODEL = "model"
"""The name of the place above both stacks, where a router for the whole model lies."""

Trainable = Literal["adapters", "skills", "router", "all"]
Axis = Literal["tasks", "splits", "skills"]
Granularity = Literal["fine", "layer", "block", "stack", "coarse"]
Leaf = TypeVar("Leaf")

_LAYER = re.compile(r"(?:^|/)layers_(\d+)(?=/|\Z)")
_LAYER_OF_STACK = re.compile(r"(encoder|decoder)/layers_\d+(?=/|$)")
# The number of leading parts of a map's path that are the place of its router.
_KEPT: dict[str, int | None] = {"fine": None, "layer": -1, "block": 2, "stack": 1, "coarse": 0}


def is_router(path: str) -> bool:
    """Whether a parameter belongs to a router."""
    return ROUTER in path.split("/") or is_input_router(path)


def is_input_router(path: str) -> bool:
    """Whether a parameter belongs to a router that reads the input of its map."""
    return INPUT_ROUTER in path.split("/")


def is_skill(path: str) -> bool:
    """Whether a parameter belongs to a skill, in the inventory or private to a task."""
    return SKILLS in path.split("/")


def is_private(path: str) -> bool:
    """Whether a parameter of skills belongs to one task each, and is not in the inventory."""
    return is_skill(path) and PRIVATE in path.split("/")


def is_inventory(path: str) -> bool:
    """Whether a parameter belongs to the skills that a router mixes."""
    return is_skill(path) and not is_private(path)


def is_adapter_parameter(path: str) -> bool:
    """Whether a parameter belongs to a skill or a router, rather than to the backbone."""
    return is_skill(path) or is_router(path)


def selects(trainable: Trainable) -> Callable[[str], bool]:
    """Return a function that says whether a parameter is trained."""
    tests: dict[Trainable, Callable[[str], bool]] = {
        "all": lambda path: True,
        "adapters": is_adapter_parameter,
        "skills": is_skill,
        # Variants that train no skill have private parameters only where these are a part of the skills' mix.
        "router": lambda path: is_router(path) or is_private(path),
    }
    return tests[trainable]


def leaf(path: str) -> str:
    """Return the last part of a parameter's path, such as `lora_a` or `logits`."""
    return path.rpartition("/")[2]


def module(path: str) -> str:
    """Return the path of the module that owns a parameter: its path without the last part."""
    return path.rpartition("/")[0]


def beside(path: str, name: str) -> str:
    """Return the path of the parameter with this name in the module that owns another parameter."""
    return f"{module(path)}/{name}"


def is_below(path: str, place: str) -> bool:
    """Whether a site is the place itself, or lies inside it."""
    return path == place or path.startswith(f"{place}/")


def by_module(leaves: Mapping[str, Leaf]) -> dict[str, dict[str, Leaf]]:
    """Group leaves by the module that owns them: by its path, then by the last parts of their own paths."""
    modules: dict[str, dict[str, Leaf]] = {}
    for path, one in leaves.items():
        modules.setdefault(module(path), {})[leaf(path)] = one
    return modules


def adapted_map(path: str) -> str:
    """Return the map that a skill's parameter adapts, such as `encoder/layers_0/attention/query`."""
    parts = path.split("/")
    return "/".join(parts[: parts.index(SKILLS)])


def place_of(path: str) -> str:
    """Return the place of a skill's or router's parameter: the map that is adapted, or `router_place`."""
    return adapted_map(path) if is_skill(path) else router_place(path)


def router_place(path: str) -> str:
    """Return the place of the router that a parameter belongs to; `MODEL` for a router of the whole model."""
    parts = path.split("/")
    name = INPUT_ROUTER if INPUT_ROUTER in parts else ROUTER
    return "/".join(parts[: parts.index(name)]) or MODEL


def skills_of(adapted: str, private: bool = False) -> str:
    """Return the module of the skills at an adapted map: the inventory, or the private skills of tasks."""
    return "/".join([adapted, SKILLS, *([PRIVATE] if private else [])])


def router_of(adapted: str, granularity: Granularity) -> str:
    """Return the module of the router for an adapted map, such as `encoder/layers_0/mlp/router`."""
    return "/".join([*adapted.split("/")[: _KEPT[granularity]], ROUTER])


def is_stacked(path: str) -> bool:
    """Whether an array has the layers of its stack on its first axis."""
    return STACKED in path.split("/")


def axis(path: str, name: Axis, axes: Sequence[str | None] | None = None) -> int | None:
    """Return the axis of tasks, splits or skills in a skill's or router's array; None if it has none.

    Axes are counted from the front, and the axis of stacked layers, where there is one, counts too.

    Args:
      path: path of the array.
      name: name of the axis.
      axes: the array's logical axis names; None for the array of a file, which does not state them. Its axes
        then follow from its path, as at the top of this module. All skills, all routers that read inputs, and
        `LearnedRouter` have these axes.
    """
    if axes is None:
        axes = _axes_of_files(path)
    return axes.index(name) if name in axes else None


def _axes_of_files(path: str) -> tuple[str, ...]:
    axes: tuple[str, ...] = ()
    if is_private(path):
        # Each task has one private skill, so the skills' axis of these arrays is the axis of tasks.
        axes = ("splits", "tasks")
    elif is_skill(path):
        axes = ("splits", "skills")
    elif is_input_router(path):
        axes = ("skills",)
    elif is_router(path):
        axes = ("tasks", "splits", "skills")
    return (STACKED, *axes) if is_stacked(path) else axes


def layer_number(path: str) -> int | None:
    """Return the number of the layer that a path names or lies in, such as `layers_3`; None for any other."""
    found = _LAYER.search(path)
    return int(found[1]) if found else None


def numbered_layer(number: int) -> str:
    """Return the part of a path that stands for one layer of a stack, such as `layers_3`."""
    return f"{STACKED}_{number}"


def in_layer(path: str, number: int) -> str:
    """Return the path of one layer's part of a stacked array."""
    return "/".join(numbered_layer(number) if part == STACKED else part for part in path.split("/"))


def layer_of(path: str) -> str:
    """Return the layer that holds a place or a parameter, such as `encoder/layers_0`.

    A path outside the layers belongs to its stack, and a path outside both stacks belongs to `MODEL`.
    """
    if found := _LAYER_OF_STACK.match(path):
        return found[0]
    return stack_of(path)


def stack_of(path: str) -> str:
    """Return the stack that holds a place, a site or a parameter; `MODEL` outside both stacks."""
    stack = path.split("/")[0]
    return stack if stack in STACKS else MODEL


def in_order(paths: Iterable[str]) -> list[str]:
    """Sort paths from the input of the model to its output: the encoder first, layer 2 before layer 10."""

    def key(path: str) -> tuple:
        parts = re.split(r"(\d+)", path)
        numbered = [int(part) if i % 2 else part for i, part in enumerate(parts)]
        stack = stack_of(path)
        return (STACKS.index(stack) if stack in STACKS else -1, *numbered)

    return sorted(paths, key=key)
