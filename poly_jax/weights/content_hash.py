"""The hash that identifies a backbone, which does not depend on the kind of its checkpoint."""

import hashlib
from collections.abc import Callable, Mapping

import jax.numpy as jnp
import numpy as np

from poly_jax.weights.safetensors_writer import Advance
from poly_jax.weights.tensors import Tensors
from poly_jax.weights.tree import cast

_FORM = "tensors:"
"""The beginning of a hash that was made of the digests of tensors, which several hosts may compute."""

DIGEST_BYTES = 32


def tensor_digest(name: str, array: np.ndarray) -> bytes:
    """Return the SHA-256 of an array of one layer and its T5X name: `DIGEST_BYTES` bytes.

    Floats are rounded to bfloat16 first: a backbone has the same hash in float32 and in bfloat16.
    """
    found = hashlib.sha256()
    _add(found, name, array)
    return found.digest()


def joined_hash(digests: Mapping[str, bytes]) -> str:
    """Return the content hash of all tensors whose `tensor_digest`s these are, by name."""
    return _FORM + hashlib.sha256(b"".join(digests[name] for name in sorted(digests))).hexdigest()


def content_hash(tensors: Tensors, advance: Advance | None = None) -> str:
    """Compute the content hash of tensors, with one tensor at a time in memory.

    Args:
      tensors: tensors by T5X's names, one per layer.
      advance: called with the number of bytes of every tensor that was read.
    """
    digests = {}
    for name, tensor in tensors.items():
        digests[name] = tensor_digest(name, tensor.load())
        if advance:
            advance(tensor.nbytes)
    return joined_hash(digests)


def same_contents(recorded: str | None, found: str | None, tensors: Callable[[], Tensors]) -> bool:
    """Return whether a recorded hash is that of contents.

    Args:
      recorded: the recorded hash. Earlier versions recorded the SHA-256 of all arrays one after another.
      found: the `content_hash` of the contents; None, or a word, where there are none.
      tensors: gives the contents' tensors, which are read again to compare with a hash of that earlier form.
    """
    if recorded == found:
        return True
    if recorded is None or found is None or recorded.startswith(_FORM) or not found.startswith(_FORM):
        return False
    whole = hashlib.sha256()
    for name, tensor in sorted(tensors().items()):
        _add(whole, name, tensor.load())
    return whole.hexdigest() == recorded


def _add(digest: "hashlib._Hash", name: str, array: np.ndarray) -> None:
    digest.update(f"{name} {array.shape};".encode())
    rounded = np.ascontiguousarray(cast(array, jnp.bfloat16))
    digest.update(rounded.reshape(-1).view(np.uint8).data)
