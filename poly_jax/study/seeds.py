"""Scores over seeds: their means and confidence intervals."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
from scipy import stats

from poly_jax.reporting.results_file import ResultsFile


def interval(values: Sequence[float] | Float[np.ndarray, "seeds"]) -> tuple[float, float]:
    """The mean, and half the width of its 95% confidence interval by Student's t distribution."""
    mean = float(np.mean(values))
    if len(values) < 2:
        return mean, float("nan")
    return mean, float(stats.sem(values) * stats.t.ppf(0.975, len(values) - 1))


def over_seeds(
    results: ResultsFile, field: str, seeds: Sequence[int], **key: str
) -> Float[np.ndarray, "seeds"] | None:
    """A field of the results with this key, one number for each seed; None where a seed has no result."""
    by_seed = {found["seed"]: result[field] for found, result in results.matching(**key)}
    if not set(seeds) <= set(by_seed):
        return None
    # An undefined number is None in the file and NaN in an array of floats.
    return np.array([by_seed[seed] for seed in seeds], np.float64)


def shown(values: Float[np.ndarray, "seeds"] | None, digits: int = 1) -> str:
    """The mean and the interval as text; a dash where there are no values."""
    if values is None:
        return "-"
    mean, half = interval(values)
    if np.isnan(half):
        return f"{mean:z.{digits}f}"
    return f"{mean:z.{digits}f} ± {half:.{digits}f}"
