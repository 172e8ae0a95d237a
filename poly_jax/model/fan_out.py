"""The common input of several projections."""

import flax.struct
from jaxtyping import Array, Float

from poly_jax.weights.sharding import copies


@flax.struct.dataclass
class FanOut:
    """An input that several projections read, as between attention's query, key and value.

    Attributes:
      x: the input.
      copies: where the mesh cuts the projections' outputs into parts, a copy of x for each part (see
        `poly_jax.weights.sharding.copies`); else None.
    """

    x: Float[Array, "batch length d_in"]
    copies: Float[Array, "parts batch length d_in"] | None = None


def fan_out(x: Float[Array, "batch length d_in"] | FanOut, width: int, axis: str, train: bool) -> FanOut:
    """Prepare an input for projections to a width whose axis has this logical name.

    Only gradients need copies, so there are none outside of training.
    """
    if isinstance(x, FanOut):
        return x
    return FanOut(x, copies(x, ("batch", "length", "embed"), width, axis) if train else None)
