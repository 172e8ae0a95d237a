"""Ways to merge LoRA skills into one, other than the average: task arithmetic, TIES, DARE and pruning.

They are PEFT's `add_weighted_adapter` with the same names, for skills of one rank and one scale: the A of all
skills are merged, and so are their B, each separately (`peft/utils/merge_utils.py`).
"""

import dataclasses
from collections.abc import Callable
from typing import Any, Literal, Protocol

import numpy as np
from jaxtyping import Float

from poly_jax.counted import counted
from poly_jax.errors import UserError
from poly_jax.literal_fields import check_literal_fields

# The type of arrays is Any, because the command line imports this module without JAX.
Tensors = Float[Any, "skills *shape"]
Uniform = Callable[[tuple[int, ...]], Any]
MajoritySign = Literal["total", "frequency"]


class Merging(Protocol):
    """A way to merge a factor (A or B) of several LoRA skills into the factor of one."""

    def skill_weights(self, n_skills: int) -> Float[np.ndarray, "skills"]:
        """The weight of every skill in the update.

        Raises:
          UserError: the number of weights differs from the number of skills.
        """
        ...

    def merge(
        self, tensors: Tensors, weights: Float[np.ndarray, "skills"], uniform: Uniform
    ) -> Float[Any, "*shape"]:
        """The merged factor.

        Args:
          tensors: the factor of every skill at one site of one layer.
          weights: weight of each skill's factor.
          uniform: draws from U(0, 1) for a shape; the same at every call with the adaptation's seed.
        """
        ...


@dataclasses.dataclass(frozen=True)
class _Weighted:
    """The weights of a way to merge skills.

    Attributes:
      weights: weight of each skill in the order of the run's skills, or one weight for all of them; None for
        1. A and B are each multiplied by the root of a weight, and A also by its sign.
    """

    weights: float | tuple[float, ...] | None = None

    def skill_weights(self, n_skills: int) -> Float[np.ndarray, "skills"]:
        """`weights`, one for each skill."""
        given = self._usual_weight(n_skills) if self.weights is None else self.weights
        weights = given if isinstance(given, tuple) else (given,) * n_skills
        if len(weights) != n_skills:
            raise UserError(
                f"{type(self).__name__}.weights has {counted(len(weights), 'weight')} for"
                f" {counted(n_skills, 'skill')}; give one for each skill, or one number for all"
            )
        return np.array(weights, np.float32)

    def _usual_weight(self, n_skills: int) -> float:
        return 1.0


@dataclasses.dataclass(frozen=True)
class _Pruned(_Weighted):
    """The weights and density of a way to merge skills.

    Attributes:
      density: share of the numbers of each factor that is kept, above 0 and at most 1.
    """

    density: float = 0.5

    def __post_init__(self):
        if not 0 < self.density <= 1:
            raise UserError(
                f"{type(self).__name__}.density is {self.density}; it must be above 0 and at most 1"
            )


@dataclasses.dataclass(frozen=True)
class _Signed(_Pruned):
    """The settings of a way to merge skills that elects signs.

    Attributes:
      majority_sign: "total" elects the sign of the sum of the skills' numbers, "frequency" the sign that most
        skills have.
    """

    majority_sign: MajoritySign = "total"

    def __post_init__(self):
        super().__post_init__()
        check_literal_fields(self)


@dataclasses.dataclass(frozen=True)
class TaskArithmetic(_Weighted):
    """The weighted sum of the skills' factors (arXiv 2212.04089); PEFT's `linear`.

    Attributes:
      weights: as for the other ways to merge, but None for weights that add up to 1.
    """

    def _usual_weight(self, n_skills: int) -> float:
        return 1 / n_skills

    def merge(
        self, tensors: Tensors, weights: Float[np.ndarray, "skills"], uniform: Uniform
    ) -> Float[Any, "*shape"]:
        """The weighted sum."""
        from poly_jax.transfer.merged_tensors import weighted_sum

        return weighted_sum(tensors, weights)


@dataclasses.dataclass(frozen=True)
class MagnitudePrune(_Pruned):
    """The weighted sum of each factor's largest numbers; PEFT's `magnitude_prune`."""

    def merge(
        self, tensors: Tensors, weights: Float[np.ndarray, "skills"], uniform: Uniform
    ) -> Float[Any, "*shape"]:
        """Prune by magnitude, then add."""
        from poly_jax.transfer.merged_tensors import largest, weighted_sum

        return weighted_sum(largest(tensors, self.density), weights)


@dataclasses.dataclass(frozen=True)
class Ties(_Signed):
    """TIES: trim, elect signs, and average the numbers that have the elected sign (arXiv 2306.01708).

    Attributes:
      density: share of the numbers of each factor that is kept, those with the largest magnitude.
    """

    density: float = 0.2

    def merge(
        self, tensors: Tensors, weights: Float[np.ndarray, "skills"], uniform: Uniform
    ) -> Float[Any, "*shape"]:
        """Prune by magnitude, elect signs, average."""
        from poly_jax.transfer.merged_tensors import disjoint_mean, largest, majority_signs

        pruned = largest(tensors, self.density)
        return disjoint_mean(pruned, weights, majority_signs(pruned, self.majority_sign))


@dataclasses.dataclass(frozen=True)
class DareLinear(_Pruned):
    """DARE: drop numbers at random and rescale the rest (arXiv 2311.03099), then add; PEFT's `dare_linear`.

    Attributes:
      density: probability of keeping a number, by which kept numbers are divided.
    """

    def merge(
        self, tensors: Tensors, weights: Float[np.ndarray, "skills"], uniform: Uniform
    ) -> Float[Any, "*shape"]:
        """Prune at random, then add."""
        from poly_jax.transfer.merged_tensors import kept_at_random, weighted_sum

        return weighted_sum(kept_at_random(tensors, uniform(tensors.shape), self.density), weights)


@dataclasses.dataclass(frozen=True)
class DareTies(_Signed):
    """DARE before TIES' election and average of the signs; PEFT's `dare_ties`.

    Attributes:
      density: probability of keeping a number, by which kept numbers are divided.
    """

    def merge(
        self, tensors: Tensors, weights: Float[np.ndarray, "skills"], uniform: Uniform
    ) -> Float[Any, "*shape"]:
        """Prune at random, elect signs, average."""
        from poly_jax.transfer.merged_tensors import disjoint_mean, kept_at_random, majority_signs

        pruned = kept_at_random(tensors, uniform(tensors.shape), self.density)
        return disjoint_mean(pruned, weights, majority_signs(pruned, self.majority_sign))
