"""Splits T5X parameters that hold all layers of a stack in one array into one parameter per layer.

T5X's scalable_t5, which is the network of umT5, scans over layers. Its `encoder/encoder/mlp/wo/kernel` holds
the kernels of all encoder layers, stacked on axis 1 (`param_scan_axis`). This project stacks on axis 0, under
`encoder/layers`. Attention kernels may have separate axes for heads and their width, where T5X's T5 example
has one axis for both.
"""

import functools
import math
import re
import threading
from collections.abc import Mapping

import numpy as np

from poly_jax.errors import UserError
from poly_jax.weights.parameter_names import STACKED, STACKS, numbered_layer
from poly_jax.weights.tensors import Tensor

_STACKED = re.compile(rf"(?P<stack>{'|'.join(STACKS)})/(?:(?P=stack)|{STACKED})/(?P<rest>.+)")
_JOINED_OUT = re.compile(r".*attention/(?:query|key|value)/kernel")
_JOINED_IN = re.compile(r".*attention/out/kernel")
# The smallest parameters that every layer has; their shapes tell which axis holds the layers.
_NORMS = ("pre_attention_layer_norm/scale", "pre_self_attention_layer_norm/scale")


def layers_apart(tensors: Mapping[str, Tensor], source: object, axis: int | None = None) -> dict[str, Tensor]:
    """Split stacked parameters into one tensor per layer, with the names and shapes of T5X's T5 example.

    All other parameters are returned unchanged. The layers of one array come one after another. An array that
    was read is kept until each of its layers has been taken, so every array is read once in any order.

    Args:
      tensors: tensors by T5X's names.
      source: name of their checkpoint, for messages.
      axis: axis of the layers; None finds it from the shapes of norms.

    Raises:
      UserError: arrays of a stack have different numbers of layers.
    """
    axis = _axis(tensors) if axis is None else axis
    depths: dict[str, tuple[int, str]] = {}
    apart: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        m = _STACKED.fullmatch(name)
        if m is None:
            apart[name] = _two_axes(name, tensor)
            continue
        depth = tensor.shape[axis] if len(tensor.shape) > axis else 0
        known, first = depths.setdefault(m["stack"], (depth, name))
        if depth != known:
            raise UserError(
                f"{source}: {name} {list(tensor.shape)} is not {known} layers on axis {axis}, as {first} is"
            )
        stack = _Stack(tensor, axis)
        for layer in range(depth):
            load = functools.partial(stack.take, layer)
            shape = tensor.shape[:axis] + tensor.shape[axis + 1 :]
            place = f"{m['stack']}/{numbered_layer(layer)}/{m['rest']}"
            apart[place] = _two_axes(place, Tensor(shape, tensor.dtype, load))
    return apart


def _axis(tensors: Mapping[str, Tensor]) -> int:
    """Find the axis of the layers: 1 as in T5X, or 0 where only this gives norms the embedding's width."""
    embedding = tensors.get("token_embedder/embedding")
    for name, tensor in tensors.items():
        m = _STACKED.fullmatch(name)
        if m and m["rest"] in _NORMS and len(tensor.shape) == 2 and embedding is not None:
            width = embedding.shape[-1]
            return 0 if tensor.shape[1] == width != tensor.shape[0] else 1
    return 1


def _two_axes(name: str, tensor: Tensor) -> Tensor:
    """Join the heads of an attention kernel; return any other tensor unchanged."""
    if len(tensor.shape) != 3:
        return tensor
    if _JOINED_OUT.fullmatch(name):
        shape = (tensor.shape[0], math.prod(tensor.shape[1:]))
    elif _JOINED_IN.fullmatch(name):
        shape = (math.prod(tensor.shape[:2]), tensor.shape[2])
    else:
        return tensor
    return Tensor(shape, tensor.dtype, lambda: tensor.load().reshape(shape))


class _Stack:
    """The layers of a stacked tensor, which stays in memory until its last layer has been taken."""

    def __init__(self, tensor: Tensor, axis: int) -> None:
        self._tensor, self._axis = tensor, axis
        self._lock = threading.Lock()
        self._array: np.ndarray | None = None
        self._left: set[int] = set()

    def take(self, layer: int) -> np.ndarray:
        """Return a copy of one layer."""
        with self._lock:
            if self._array is None:
                self._array = self._tensor.load()
                self._left = set(range(self._array.shape[self._axis]))
            taken = np.ascontiguousarray(np.take(self._array, layer, self._axis))
            self._left.discard(layer)
            if not self._left:
                self._array = None
            return taken
