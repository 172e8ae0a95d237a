"""Measures of how a router distributes its weight over skills, for each task and over all tasks."""

import dataclasses
from collections.abc import Iterable

import numpy as np
from jaxtyping import Float
from scipy.special import entr


@dataclasses.dataclass(frozen=True)
class Statistics:
    """Measures of one router, or their means over several routers; NaN for a router with one skill.

    A share is the absolute value of a weight over the sum of the absolute weights of its task and split (MHR
    head). H is Shannon's entropy and K the number of skills. The analysis of Polytropon reports discreteness,
    active skills and usage (arXiv 2202.13914; `PolytroponLog` of its code). The other measures exist for any
    router.

    Attributes:
      discreteness: 1 - the mean binary entropy, in bits, of the allocation z: 0 where every z is 1/2, 1 where
        every z is 0 or 1. NaN for routers without an allocation.
      active: mean share of the skills whose z is at least 1/2; NaN as above.
      effective_skills: mean of exp(H(shares)) over tasks and splits: 1 for one skill, K for equal shares.
      sparsity: mean of 1 - H(shares) / log K: 0 for equal shares, 1 for a single skill.
      usage_entropy: mean over splits of H(usage) / log K, where usage is the mean share over tasks: 1 where
        all skills have the same weight, 0 where one skill has all of it.
      specialisation: mean over splits of (H(usage) - mean over tasks of H(shares)) / log K, the mutual
        information of task and skill: 0 where all tasks have the same mix, and 1 where every task has a
        single skill and all skills are used equally.
    """

    discreteness: float
    active: float
    effective_skills: float
    sparsity: float
    usage_entropy: float
    specialisation: float


def shares(weights: Float[np.ndarray, "*rows skills"]) -> Float[np.ndarray, "*rows skills"]:
    """Absolute weights over their sum; zeros where all weights are 0."""
    magnitudes = np.abs(np.asarray(weights, np.float64))
    total = magnitudes.sum(-1, keepdims=True)
    return np.divide(magnitudes, total, out=np.zeros_like(magnitudes), where=total > 0)


def usage(weights: Float[np.ndarray, "tasks splits skills"]) -> Float[np.ndarray, "splits skills"]:
    """Mean share of each skill over tasks."""
    return shares(weights).mean(0)


def effective_skills(weights: Float[np.ndarray, "tasks splits skills"]) -> Float[np.ndarray, "tasks splits"]:
    """exp(H(shares)) of every task and split; 0 where all weights are 0."""
    part = shares(weights)
    return np.exp(entr(part).sum(-1)) * (part.sum(-1) > 0)


def statistics(
    weights: Float[np.ndarray, "tasks splits skills"],
    allocation: Float[np.ndarray, "tasks splits skills"] | None = None,
) -> Statistics:
    """The measures of one router.

    Args:
      weights: mixing weights of evaluation.
      allocation: z in [0, 1] before it is normalised; None where the router has none.
    """
    n_skills = weights.shape[-1]
    largest = np.log(n_skills) if n_skills > 1 else np.nan
    of_tasks = entr(shares(weights)).sum(-1)
    of_usage = entr(usage(weights)).sum(-1)
    discreteness = active = np.nan
    if allocation is not None:
        z = np.asarray(allocation, np.float64)
        discreteness = float(1 - np.mean(entr(z) + entr(1 - z)) / np.log(2))
        active = float(np.mean(z >= 0.5))
    return Statistics(
        discreteness=discreteness,
        active=active,
        effective_skills=float(effective_skills(weights).mean()),
        sparsity=float(1 - of_tasks.mean() / largest),
        usage_entropy=float(of_usage.mean() / largest),
        specialisation=float((of_usage.mean() - of_tasks.mean()) / largest),
    )


def mean(measured: Iterable[Statistics]) -> Statistics:
    """The mean of every measure."""
    rows = np.array([dataclasses.astuple(one) for one in measured])
    return Statistics(*map(float, rows.mean(0)))
