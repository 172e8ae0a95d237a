"""The hash that tells one backbone from another, whatever kind of checkpoint it is in."""

import hashlib

import jax.numpy as jnp
import numpy as np

from poly_jax.interop.safetensors_writer import Advance
from poly_jax.interop.tensors import Tensors


def content_hash(tensors: Tensors, advance: Advance | None = None) -> str:
    """SHA-256 over names and contents, in the order of names; one tensor at a time is in memory.

    Floats are rounded to bfloat16 first, so that a backbone read in float32 is the one read in bfloat16.

    Args:
      tensors: by T5X's names, layers apart.
      advance: told the bytes of every tensor that was read.
    """
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.shape};".encode())
        array = np.ascontiguousarray(tensor.cast(jnp.bfloat16).load())
        digest.update(array.reshape(-1).view(np.uint8).data)
        if advance:
            advance(tensor.nbytes)
    return digest.hexdigest()
