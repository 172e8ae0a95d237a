"""Finding a combination of skills for a new task without gradients, by its loss on a few examples."""

import dataclasses
from collections.abc import Callable
from typing import Protocol

import numpy as np
from jaxtyping import Float

from poly_jax.counts import check_counts
from poly_jax.errors import UserError
from poly_jax.transfer.combination import Combination

Losses = Callable[[Combination], Float[np.ndarray, "combinations"]]


class CombinationSearch(Protocol):
    """A way to find a combination of skills for a new task without gradients."""

    def size(self, n_skills: int) -> int:
        """The number of skills that are combined, out of an inventory of `n_skills`."""
        ...

    def choose(self, n_skills: int, losses: Losses, seed: int) -> Combination:
        """The combination `[n]` for a new task.

        Args:
          n_skills: size of the inventory.
          losses: the loss on the new task's few examples of each of several combinations `[combinations, n]`.
          seed: seed of all random numbers.
        """
        ...


@dataclasses.dataclass(frozen=True)
class SelectedSkills:
    """The average of the skills whose adapters, each used alone, have the lowest loss on the examples.

    AdapterSoup (arXiv 2302.07027) averages the few adapters that are nearest to the new domain by text
    embeddings. Here the loss measures nearness, which needs no other model.

    Attributes:
      count: number of skills that are averaged; all of them where the inventory has fewer.
    """

    count: int = 5

    def __post_init__(self):
        check_counts("SelectedSkills", count=self.count)

    def size(self, n_skills: int) -> int:
        """`count`, or the size of a smaller inventory."""
        return min(self.count, n_skills)

    def choose(self, n_skills: int, losses: Losses, seed: int) -> Combination:
        """The average of the best skills, the best first."""
        alone = losses(Combination.average(np.arange(n_skills)[:, None]))
        return Combination.average(np.argsort(alone, kind="stable")[: self.size(n_skills)])


@dataclasses.dataclass(frozen=True)
class SearchedWeights:
    """Weights of the skills that a search without gradients finds, as in LoraHub (arXiv 2307.13269).

    The search minimises the loss on the examples plus `l1` times the mean absolute weight. Weights lie in
    [-bound, bound], start at 0 and are shared by all sites and splits (MHR heads). The search is CMA-ES
    (library `cmaes`); LoraHub's code uses NGOpt of nevergrad.

    Attributes:
      evaluations: number of mixes that are tried, at least one generation of CMA-ES; LoraHub's 40 steps are
        40 evaluations.
      bound: largest absolute value of a weight.
      l1: coefficient of the mean absolute weight.
      spread: standard deviation of the first generation.
      candidates: number of skills that take part; a larger inventory is sampled at random.
    """

    evaluations: int = 40
    bound: float = 1.5
    l1: float = 0.05
    spread: float = 0.5
    candidates: int = 20

    def __post_init__(self):
        check_counts("SearchedWeights", evaluations=self.evaluations)
        if self.candidates < 2:
            raise UserError(f"SearchedWeights.candidates is {self.candidates}; it must be at least 2")
        for name in ("bound", "spread"):
            if getattr(self, name) <= 0:
                raise UserError(f"SearchedWeights.{name} is {getattr(self, name)}; it must be above 0")

    def size(self, n_skills: int) -> int:
        """`candidates`, or the size of a smaller inventory."""
        return min(self.candidates, n_skills)

    def choose(self, n_skills: int, losses: Losses, seed: int) -> Combination:
        """The mix with the lowest objective of all that were tried."""
        # Imported here because the command line imports this module for the names of the variants, and cmaes
        # imports all of SciPy.
        from cmaes import CMA

        size = self.size(n_skills)
        skills = np.arange(n_skills)
        if size < n_skills:
            skills = np.sort(np.random.default_rng(seed).choice(n_skills, size, replace=False))
        bounds = np.tile([-self.bound, self.bound], (size, 1))
        search = CMA(mean=np.zeros(size), sigma=self.spread, bounds=bounds, seed=seed)
        best, lowest = np.zeros(size), np.inf
        for _ in range(max(1, self.evaluations // search.population_size)):
            asked = np.stack([search.ask() for _ in range(search.population_size)])
            values = losses(Combination.weighted(skills, asked)) + self.l1 * np.abs(asked).mean(-1)
            # CMA-ES needs an order even of losses that overflow.
            values = np.nan_to_num(np.asarray(values, np.float64), nan=1e30, posinf=1e30)
            search.tell(list(zip(asked, values.tolist(), strict=True)))
            if values.min() < lowest:
                best, lowest = asked[values.argmin()], values.min()
        return Combination.weighted(skills, best)
