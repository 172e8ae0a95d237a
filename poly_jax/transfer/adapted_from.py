"""How an adapted run began: from which run, by which variant and with what chosen or drawn."""

import dataclasses

import jax
import numpy as np

from poly_jax.transfer.combination import Combination


@dataclasses.dataclass(frozen=True)
class AdaptedFrom:
    """What `poly-jax adapt` began with. An adapted run's `config.gin` has it, and no other run's.

    Attributes:
      step: folder of the checkpoint that was adapted.
      variant: see `poly_jax.transfer.variants`.
      seed: of the fresh parameters, the batches, dropout and sampling.
      shots: examples that were trained on; None for all of the split.
      init_router_from: tasks whose rows' average the new rows started from; none for fresh rows.
      skills: places in the inventory of the skills that the variant chose to combine; none where it has no
        choice.
      weights: of each of these in the sum that the one adapter began as.
    """

    step: str
    variant: str
    seed: int
    shots: int | None = None
    init_router_from: tuple[str, ...] = ()
    skills: tuple[int, ...] = ()
    weights: tuple[float, ...] = ()

    @classmethod
    def chosen(cls, combination: Combination | None, **fields) -> "AdaptedFrom":
        """With the skills and weights of a combination, where there is one."""
        if combination is None:
            return cls(**fields)
        skills, factors = jax.device_get(combination)
        weights = np.asarray(factors, np.float64) / len(skills)
        return cls(**fields, skills=tuple(skills.tolist()), weights=tuple(weights.tolist()))

    @property
    def combination(self) -> Combination | None:
        """Of the chosen skills; None where the variant has no choice."""
        if not self.skills:
            return None
        return Combination.weighted(np.array(self.skills), np.array(self.weights))
