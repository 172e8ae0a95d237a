"""Finds the largest batch that fits, with few compilations."""

import dataclasses
from collections.abc import Callable

from poly_jax.data.task_table import TaskTable
from poly_jax.planning.abstract_run import AbstractRun
from poly_jax.planning.plan import Plan, make_plan

_MOST_TRIALS = 8
_MOST_GROWTH = 8
# The result may be smaller than the largest by this part of it.
_RESOLUTION = 32


@dataclasses.dataclass(frozen=True)
class Trial:
    """A size that was tried.

    Attributes:
      size: the size.
      used: bytes that it takes.
      fits: whether it fits.
    """

    size: int
    used: int
    fits: bool


def largest_batch(run: AbstractRun, table: TaskTable, plan: Plan) -> int:
    """Find the largest batch size of one of a run's programs on its mesh, to within a 32nd.

    Args:
      run: the run.
      table: its tasks.
      plan: the program's plan with its own batch size.

    Returns:
      The number of rows of a step over all chips; 0 if not even one row a device fits.
    """
    accelerators, trains = plan.accelerators, plan.program == "train"
    unit = accelerators.devices // run.partitioning.model * (run.microbatches if trains else 1)

    def tried(plan: Plan, units: int) -> Trial:
        return Trial(units, plan.memory.peak, plan.fits)

    def attempt(units: int) -> Trial:
        data = dataclasses.replace(run.data, batch_size=units * unit)
        experiment = dataclasses.replace(run.experiment, data=data)
        changed = dataclasses.replace(run, experiment=experiment)
        return tried(make_plan(changed, table, accelerators, plan.program, units * unit), units)

    limit = plan.available or accelerators.peaks.hbm_bytes
    return unit * largest_size(attempt, tried(plan, plan.batch_size // unit), limit)


def largest_size(attempt: Callable[[int], Trial], first: Trial, limit: int) -> int:
    """Find the largest size that fits, where the bytes grow about linearly.

    Args:
      attempt: tries a size of at least 1.
      first: a first trial.
      limit: about the bytes that fit.

    Returns:
      The size, 0 if not even size 1 fits.
    """
    trials = [first]
    for _ in range(_MOST_TRIALS):
        low = max((trial for trial in trials if trial.fits), key=lambda trial: trial.size, default=None)
        high = min((trial for trial in trials if not trial.fits), key=lambda trial: trial.size, default=None)
        fitting = low.size if low else 0
        step = max(1, fitting // _RESOLUTION)
        if high is not None and high.size - fitting <= step:
            break
        # A guess that is close to a size that fits is probably right: trying one step more ends the search.
        least, guess = fitting + step, _guess(trials, limit)
        if high is None:
            guess = min(guess, _MOST_GROWTH * fitting)
        elif guess >= high.size:
            # The bytes have made a jump below the size that does not fit, where the line knows nothing.
            guess = least
        trials.append(attempt(max(guess, least)))
    return max((trial.size for trial in trials if trial.fits), default=0)


def _guess(trials: list[Trial], limit: int) -> int:
    """The size whose bytes are the limit, on the line through the two trials that are nearest to it."""
    nearest = sorted(trials, key=lambda trial: abs(trial.used - limit))[:2]
    if len(nearest) == 1:
        (only,) = nearest
        return only.size * limit // max(only.used, 1)
    one, other = nearest
    slope = (other.used - one.used) / (other.size - one.size)
    return int(one.size + (limit - one.used) / slope) if slope > 0 else max(one.size, other.size) * 2
