"""The hash that identifies a backbone, which does not depend on the kind of its checkpoint."""

import hashlib

import jax.numpy as jnp
import numpy as np

from poly_jax.weights.safetensors_writer import Advance
from poly_jax.weights.tensors import Tensors
from poly_jax.weights.tree import cast


class ContentHash:
    """SHA-256 over the names and contents of arrays that are added in the order of their names.

    Floats are rounded to bfloat16 first: a backbone has the same hash in float32 and in bfloat16.
    """

    def __init__(self) -> None:
        """Begin with the hash of no arrays."""
        self._digest = hashlib.sha256()

    def add(self, name: str, array: np.ndarray) -> None:
        """Add an array of one layer under T5X's name."""
        self._digest.update(f"{name} {array.shape};".encode())
        rounded = np.ascontiguousarray(cast(array, jnp.bfloat16))
        self._digest.update(rounded.reshape(-1).view(np.uint8).data)

    def hexdigest(self) -> str:
        """Return the hash of the arrays that were added so far."""
        return self._digest.hexdigest()


def content_hash(tensors: Tensors, advance: Advance | None = None) -> str:
    """Compute the `ContentHash` of tensors, with one tensor at a time in memory.

    Args:
      tensors: tensors by T5X's names, one per layer.
      advance: called with the number of bytes of every tensor that was read.
    """
    whole = ContentHash()
    for name, tensor in sorted(tensors.items()):
        whole.add(name, tensor.load())
        if advance:
            advance(tensor.nbytes)
    return whole.hexdigest()
