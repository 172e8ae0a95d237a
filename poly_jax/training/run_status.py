"""The state of a run: its step, its speed, its checkpoints, and where its time went."""

import dataclasses
from collections.abc import Sequence

from etils import epath

from poly_jax.errors import UserError
from poly_jax.training.metrics_file import LastReport, last_report
from poly_jax.training.positions import check_positions
from poly_jax.training.retention import Score, best_step
from poly_jax.training.run_folder import is_locked
from poly_jax.training.saved_step import damage
from poly_jax.training.saved_steps import FOLDER, saved_scores, saved_steps
from poly_jax.training.time_spent import Report, read_report


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """A checkpoint of a run.

    Attributes:
      folder: its folder.
      damage: the damaged part; None where it is intact.
      score: the metric by which the best checkpoint is kept; None where it is not known.
      is_best: whether its score is the best of the checkpoints.
    """

    folder: epath.Path
    damage: str | None
    score: Score | None
    is_best: bool


@dataclasses.dataclass(frozen=True)
class RunStatus:
    """The state of a run.

    Attributes:
      working: whether a program is working on the run now; None where this cannot be told.
      report: the newest report; None where there is none.
      time: use of the time; None for a run of an earlier version or without training.
      checkpoints: the checkpoints, the newest first.
    """

    working: bool | None
    report: LastReport | None
    time: Report | None
    checkpoints: Sequence[Checkpoint]

    @property
    def step(self) -> int:
        """Number of the last step that is known to be taken."""
        known = [int(checkpoint.folder.name) for checkpoint in self.checkpoints]
        known += [] if self.report is None else [self.report.step]
        known = known if self.time is None else [*known, self.time.step]
        return max(known, default=0)

    @property
    def newest_intact(self) -> Checkpoint | None:
        """The newest intact checkpoint."""
        return next((each for each in self.checkpoints if each.damage is None), None)


def run_status(run: epath.Path) -> RunStatus:
    """Read the state of a run, and compare all of its checkpoints with their checksums.

    Raises:
      UserError: the metrics or the report of the time are damaged.
    """
    working, report, time = is_locked(run), last_report(run), read_report(run)
    scores = saved_scores(run)
    newest = max(scores, default=None)
    best = None if newest is None else best_step(scores, scores[newest].metric)
    found = []
    for number in sorted(saved_steps(run), reverse=True):
        folder = run / FOLDER / str(number)
        damaged = damage(folder) or _position_damage(run, number)
        # A program that is working on the run may have deleted it in the meantime.
        if folder.exists():
            found.append(Checkpoint(folder, damaged, scores.get(number), number == best))
    return RunStatus(working, report, time, found)


def _position_damage(run: epath.Path, step: int) -> str | None:
    # What was imported, or adapted without training, is saved at step 0, before any data is read.
    if step == 0:
        return None
    try:
        check_positions(run, step)
    except UserError as error:
        return str(error)
    return None
