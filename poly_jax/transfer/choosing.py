"""Choosing which skills become a new task's one adapter: those that fit best, or a searched mix."""

import dataclasses
from collections.abc import Callable
from typing import Protocol

import numpy as np
from cmaes import CMA
from jaxtyping import Float

from poly_jax.errors import UserError
from poly_jax.transfer.combination import Combination

Losses = Callable[[Combination], Float[np.ndarray, "combinations"]]


class Choice(Protocol):
    """A way to choose a combination of skills for a new task, without a gradient."""

    def size(self, n_skills: int) -> int:
        """How many of the inventory's skills are combined."""
        ...

    def choose(self, n_skills: int, losses: Losses, seed: int) -> Combination:
        """The combination `[n]` for a new task.

        Args:
          n_skills: size of the inventory.
          losses: of the new task's few examples, under combinations `[combinations, n]`.
          seed: of whatever is drawn.
        """
        ...


@dataclasses.dataclass(frozen=True)
class SelectedSkills:
    """The average of the skills that, each alone, have the lowest loss on the new task's examples.

    AdapterSoup (arXiv 2302.07027) averages the few adapters that are nearest to the new domain by the text's
    embeddings; here nearness is the loss, which needs no other model.

    Attributes:
      count: how many are averaged; all where there are fewer.
    """

    count: int = 5

    def __post_init__(self):
        if self.count < 1:
            raise UserError(f"SelectedSkills.count is {self.count}; it must be at least 1")

    def size(self, n_skills: int) -> int:
        """As many as `count`, if there are."""
        return min(self.count, n_skills)

    def choose(self, n_skills: int, losses: Losses, seed: int) -> Combination:
        """The average of the best, the better one first."""
        alone = losses(Combination.average(np.arange(n_skills)[:, None]))
        return Combination.average(np.argsort(alone, kind="stable")[: self.size(n_skills)])


@dataclasses.dataclass(frozen=True)
class SearchedWeights:
    """Weights of the skills by a search without gradients, as LoraHub has them (arXiv 2307.13269).

    Minimises the loss of the examples plus `l1` times the mean absolute weight, over weights in
    [-bound, bound] that are shared by all sites and heads, from 0. The search is CMA-ES (library `cmaes`),
    where LoraHub's code uses NGOpt of nevergrad.

    Attributes:
      evaluations: how many mixes are tried, at least one generation of CMA-ES; LoraHub's 40 steps are 40.
      bound: of each weight.
      l1: of the mean absolute weight.
      spread: standard deviation of the first generation.
      candidates: how many skills take part: a random choice where there are more.
    """

    evaluations: int = 40
    bound: float = 1.5
    l1: float = 0.05
    spread: float = 0.5
    candidates: int = 20

    def __post_init__(self):
        if self.evaluations < 1:
            raise UserError(f"SearchedWeights.evaluations is {self.evaluations}; it must be at least 1")
        if self.candidates < 2:
            raise UserError(f"SearchedWeights.candidates is {self.candidates}; it must be at least 2")
        for name in ("bound", "spread"):
            if getattr(self, name) <= 0:
                raise UserError(f"SearchedWeights.{name} is {getattr(self, name)}; it must be above 0")

    def size(self, n_skills: int) -> int:
        """As many as `candidates`, if there are."""
        return min(self.candidates, n_skills)

    def choose(self, n_skills: int, losses: Losses, seed: int) -> Combination:
        """The best of all mixes that were tried."""
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
            # Where the loss overflows, CMA-ES still needs an order.
            values = np.nan_to_num(np.asarray(values, np.float64), nan=1e30, posinf=1e30)
            search.tell(list(zip(asked, values.tolist(), strict=True)))
            if values.min() < lowest:
                best, lowest = asked[values.argmin()], values.min()
        return Combination.weighted(skills, best)
