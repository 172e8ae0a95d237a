"""Refuses tensors of other systems that hold NaN or infinities, which a diverged training leaves."""

from collections.abc import Mapping

import jax.numpy as jnp
import numpy as np

from poly_jax.errors import UserError
from poly_jax.weights.tensors import Tensor


def finite(tensors: Mapping[str, Tensor], source: object) -> dict[str, Tensor]:
    """Return the same tensors, each of which is checked when it is read.

    Args:
      tensors: tensors by the names that the message uses.
      source: name of their checkpoint, for the message.

    Raises, when a tensor is read:
      UserError: the tensor has a NaN or an infinity.
    """
    return {name: _checked(name, tensor, source) for name, tensor in tensors.items()}


def _checked(name: str, tensor: Tensor, source: object) -> Tensor:
    def load() -> np.ndarray:
        array = tensor.load()
        if jnp.issubdtype(array.dtype, jnp.floating) and not np.isfinite(array).all():
            bad = int(np.size(array) - np.isfinite(array).sum())
            raise UserError(
                f"{source}: {name} has {bad:,} of {array.size:,} numbers that are NaN or"
                " infinite; take a"
                " checkpoint from before the training diverged"
            )
        return array

    return Tensor(tensor.shape, tensor.dtype, load)
