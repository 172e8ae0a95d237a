"""Which layer of a T5 a place or a parameter is in, and the order of layers."""

import re
from collections.abc import Iterable

_LAYER = re.compile(r"(encoder|decoder)/layers_\d+(?=/|$)")
_STACKS = {"encoder": 0, "decoder": 1}


def layer_of(path: str) -> str:
    """`encoder/layers_0` of what is in that layer; else the stack, or "model" for what is in neither.

    Args:
      path: '/'-joined, with layers apart.
    """
    if match := _LAYER.match(path):
        return match[0]
    stack = path.split("/")[0]
    return stack if stack in _STACKS else "model"


def in_order(paths: Iterable[str]) -> list[str]:
    """Paths from the input to the output: the encoder first, layer 2 before layer 10."""

    def key(path: str) -> tuple:
        parts = re.split(r"(\d+)", path)
        numbered = [int(part) if i % 2 else part for i, part in enumerate(parts)]
        return (_STACKS.get(path.split("/")[0], -1), *numbered)

    return sorted(paths, key=key)
