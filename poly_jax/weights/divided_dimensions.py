"""Whether the axes of a device mesh divide the dimensions of a T5."""

import math

from poly_jax.errors import UserError
from poly_jax.weights.t5_dimensions import T5Dimensions

WHOLE_VOCABULARY = 512
"""The largest vocabulary that every device may hold whole: bytes with some special tokens, which are 259."""


def check_divided(dimensions: T5Dimensions, fsdp: int, model: int, devices: int) -> None:
    """Raise a UserError if a mesh would leave a dimension of a T5 undivided, as a copy on every device.

    Every device would hold the whole dimension, and compute it where `model` should have divided it.

    Args:
      dimensions: the T5.
      fsdp: size of the mesh axis `fsdp`, which divides the width of the residual stream.
      model: size of the mesh axis `model`, which divides heads, hidden units of the MLPs and the vocabulary.
      devices: number of devices of one slice; `fsdp * model` divides it.
    """
    for axis, size, others in (("model", model, fsdp), ("fsdp", fsdp, model)):
        lengths = _lengths(dimensions, axis)
        for name, length in lengths.items():
            if length % size:
                divided = math.gcd(devices // others, *lengths.values())
                possible = [str(part) for part in range(1, divided + 1) if divided % part == 0]
                raise UserError(
                    f"Partitioning.{axis} {size} does not divide T5Config.{name} {length}; choose"
                    f" Partitioning.{axis} from {', '.join(possible)}"
                )


def divides(dimensions: T5Dimensions, fsdp: int, model: int) -> bool:
    """Return whether a mesh leaves no dimension of a T5 undivided; see `check_divided`."""
    return not any(
        length % size
        for axis, size in (("model", model), ("fsdp", fsdp))
        for length in _lengths(dimensions, axis).values()
    )


def _lengths(dimensions: T5Dimensions, axis: str) -> dict[str, int]:
    """The dimensions that an axis of the mesh divides, by the names of their fields."""
    names = ["emb_dim"] if axis == "fsdp" else ["num_heads", "mlp_dim"]
    if axis == "model" and dimensions.vocab_size > WHOLE_VOCABULARY:
        names.append("vocab_size")
    return {name: getattr(dimensions, name) for name in names}
