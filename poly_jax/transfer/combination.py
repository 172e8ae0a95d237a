"""The skills of an inventory that are combined into one adapter, and their weights."""

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int


class Combination(NamedTuple):
    """A choice of skills, and the factor of each before they are averaged; arrays of NumPy or JAX.

    skills: indices in the inventory.
    factors: 1 for an average; n times its weight for a sum of n weighted skills.
    """

    # The type is Any, for arrays of NumPy and of JAX: the command line imports this module without JAX.
    skills: Int[Any, "*many n"]
    factors: Float[Any, "*many n"]

    @classmethod
    def average(cls, skills: Int[np.ndarray, "*many n"]) -> "Combination":
        """The average of these skills."""
        return cls(skills, np.ones(skills.shape, np.float32))

    @classmethod
    def weighted(cls, skills: Int[np.ndarray, "n"], weights: Float[np.ndarray, "*many n"]) -> "Combination":
        """The sum of these skills, each multiplied by its weight."""
        skills = np.broadcast_to(skills, weights.shape)
        return cls(skills, (weights.shape[-1] * weights).astype(np.float32))
