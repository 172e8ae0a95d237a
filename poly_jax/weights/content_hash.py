"""The hash that tells one backbone from another, whatever kind of checkpoint it is in."""

import hashlib

import jax.numpy as jnp
import numpy as np

from poly_jax.weights.safetensors_writer import Advance
from poly_jax.weights.tensors import Tensors
from poly_jax.weights.tree import cast


class ContentHash:
    """SHA-256 over the names and contents of arrays that are added in the order of their names.

    Floats are rounded to bfloat16 first, so that a backbone read in float32 is the one read in bfloat16.
    """

    def __init__(self) -> None:
        """That of no arrays."""
        self._digest = hashlib.sha256()

    def add(self, name: str, array: np.ndarray) -> None:
        """Adds an array; its name is T5X's, layers apart."""
        self._digest.update(f"{name} {array.shape};".encode())
        rounded = np.ascontiguousarray(cast(array, jnp.bfloat16))
        self._digest.update(rounded.reshape(-1).view(np.uint8).data)

    def hexdigest(self) -> str:
        """The hash of what was added so far."""
        return self._digest.hexdigest()


def content_hash(tensors: Tensors, advance: Advance | None = None) -> str:
    """The `ContentHash` of tensors, of which one at a time is in memory.

    Args:
      tensors: by T5X's names, layers apart.
      advance: told the bytes of every tensor that was read.
    """
    whole = ContentHash()
    for name, tensor in sorted(tensors.items()):
        whole.add(name, tensor.load())
        if advance:
            advance(tensor.nbytes)
    return whole.hexdigest()
