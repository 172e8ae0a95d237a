"""The record of how an adapted run started: the run and variant, the seed, and the chosen skills."""

import dataclasses

import jax
import numpy as np

from poly_jax.transfer.combination import Combination


@dataclasses.dataclass(frozen=True)
class AdaptedFrom:
    """The arguments and choices with which `poly-jax adapt` started, in the run's `config.gin`.

    Only adapted runs have them.

    Attributes:
      step: folder of the checkpoint that was adapted.
      variant: name of the variant; see `poly_jax.transfer.variants`.
      seed: seed of the fresh parameters, the batches, dropout and sampling.
      shots: number of examples to train on; None for all examples of the split.
      init_router_from: tasks whose rows were averaged to start the new rows; empty for fresh rows.
      skills: indices in the inventory of the skills that the variant chose to combine; empty if the variant
        does not choose skills.
      weights: weight of each of these skills in the sum that the adapter started from.
      skill_names: names of all skills of the inventory that a row mixes, in their order; empty where the
        skills of the run that was adapted have no names.
    """

    step: str
    variant: str
    seed: int
    shots: int | None = None
    init_router_from: tuple[str, ...] = ()
    skills: tuple[int, ...] = ()
    weights: tuple[float, ...] = ()
    skill_names: tuple[str, ...] = ()

    @classmethod
    def chosen(cls, combination: Combination | None, **fields) -> "AdaptedFrom":
        """Make it from the other fields and the skills and weights of a combination, if there is one."""
        if combination is None:
            return cls(**fields)
        skills, factors = jax.device_get(combination)
        weights = np.asarray(factors, np.float64) / len(skills)
        return cls(**fields, skills=tuple(skills.tolist()), weights=tuple(weights.tolist()))

    @property
    def combination(self) -> Combination | None:
        """The combination of the chosen skills; None if the variant does not choose skills."""
        if not self.skills:
            return None
        return Combination.weighted(np.array(self.skills), np.array(self.weights))
