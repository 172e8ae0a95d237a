"""The content hash of a backbone, with a progress bar."""

from poly_jax.reporting.byte_progress import byte_progress
from poly_jax.weights.content_hash import content_hash
from poly_jax.weights.tensors import Tensors, total_bytes


def hash_with_progress(tensors: Tensors, doing: str = "hashing the backbone") -> str:
    """Return the `content_hash` of tensors; `doing` says beside the bar what the program does."""
    with byte_progress(doing, total_bytes(tensors.values())) as advance:
        return content_hash(tensors, advance)
