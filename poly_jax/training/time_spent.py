"""The use of the wall time of a run, over all programs that have worked on the run (a goodput report)."""

import contextlib
import dataclasses
import json
import os
import sys
from collections.abc import Callable
from typing import Literal, get_args

from etils import epath

from poly_jax.errors import UserError
from poly_jax.files.json_fields import Fields
from poly_jax.files.json_file import read_json
from poly_jax.files.whole_file import write_whole
from poly_jax.program_start import clock as wall_clock

FILE = "time_spent.json"

Kind = Literal[
    "start_up", "compile", "data_wait", "step", "evaluation", "save_stall", "lost_to_restarts", "idle"
]
"""The kinds of use of the time.

`start_up` is the time from the start of a program to its first step, and `compile` the time of each program's
first step. In `data_wait` the devices had no work because the next batch was not ready. In `save_stall` no
step was taken because of a checkpoint. `lost_to_restarts` is the time of steps that an
earlier program had taken already. `idle` is the time between two programs.
"""
KINDS: tuple[Kind, ...] = get_args(Kind)

_ADVICE = "delete it: the run then counts its time anew"
# What a program does after it has done these.
_AFTER: dict[Kind, Kind] = {"start_up": "compile", "compile": "step"}
# Writing takes less than a millisecond, and tens of them where the folder is in a bucket.
_WRITE_EVERY = 1.0
_WRITE_BUCKET_EVERY = 15.0


@dataclasses.dataclass(frozen=True)
class Report:
    """The time that a run has taken until now.

    Attributes:
      began: Unix time at which the first program on the run began, in seconds.
      until: Unix time up to which the time is divided.
      programs: number of programs that have worked on the run.
      steps: number of steps of the whole run.
      step: number of the last step that the newest program has taken, or from which it goes on.
      furthest_step: number of the last step that any of the programs has taken.
      seconds: the time of each kind. The sum is `until - began`.
    """

    began: float
    until: float
    programs: int
    steps: int
    step: int
    furthest_step: int
    seconds: dict[Kind, float]

    @property
    def goodput(self) -> float:
        """Fraction of the wall time in which the run took steps that count."""
        total = sum(self.seconds.values())
        return self.seconds["step"] / total if total else 0.0


def read_report(run: epath.Path) -> Report | None:
    """Read the report of a run; None where the run has none.

    Raises:
      UserError: the file is damaged.
    """
    path = run / FILE
    if not path.exists():
        return None
    fields = Fields(read_json(path, advice=_ADVICE), path, _ADVICE)
    seconds = fields.inside("seconds")
    seconds.check_known(KINDS)
    return Report(
        began=fields.take("began", float, at_least=0),
        until=fields.take("until", float, at_least=0),
        programs=fields.take("programs", int, at_least=1),
        steps=fields.take("steps", int, at_least=0),
        step=fields.take("step", int, at_least=0),
        furthest_step=fields.take("furthest_step", int, at_least=0),
        seconds={kind: seconds.take(kind, float, at_least=0) for kind in KINDS},
    )


class TimeSpent:
    """Divides the wall time of a run into kinds, one interval after the other, and writes the report.

    Each interval ends with a call of `add`, which says what the interval was spent on.
    """

    def __init__(
        self,
        run: epath.Path | None,
        steps: int,
        step: int,
        began: float,
        clock: Callable[[], float] = wall_clock,
    ):
        """Go on with the report that the run has.

        Args:
          run: folder of the run; None for a host that writes no report.
          steps: number of steps of the whole run.
          step: the step from which this program goes on.
          began: Unix time at which this program began, in seconds.
          clock: returns the present Unix time in seconds.
        """
        self._run, self._clock = run, clock
        earlier = None
        if run is not None:
            try:
                earlier = read_report(run)
            except UserError as error:
                # A report is no reason to stop a run that may take weeks.
                print(f"{error}; this program counts it anew", file=sys.stderr)
        if earlier is None:
            self._seconds: dict[Kind, float] = dict.fromkeys(KINDS, 0.0)
            self._first, self._programs, self._before, self._late = began, 1, 0, 0.0
        else:
            self._seconds = dict(earlier.seconds)
            self._first, self._programs = earlier.began, earlier.programs + 1
            self._before = earlier.furthest_step
            # The clock of this machine may be behind that of the machine before.
            self._late = max(earlier.until - began, 0.0)
            self._seconds["idle"] += max(began - earlier.until, 0.0)
        self._steps, self._taken, self._current = steps, step, step
        self._until = began + self._late
        self._written = self._until
        self._rest: Kind = "start_up"
        self._every = _WRITE_BUCKET_EVERY if "://" in os.fspath(run or "") else _WRITE_EVERY

    def begin_step(self, step: int) -> None:
        """Begin a step, whose time is lost where an earlier program has taken the step already."""
        self._current, self._taken = step, step - 1

    def add(self, kind: Kind) -> None:
        """Count the time since the last call as time of a kind."""
        self._rest = _AFTER.get(kind, self._rest)
        now = max(self._clock() + self._late, self._until)
        if kind not in ("start_up", "compile", "idle") and self._current <= self._before:
            kind = "lost_to_restarts"
        self._seconds[kind] += now - self._until
        self._until = now

    def report(self) -> Report:
        """Return the report up to the last call of `add`."""
        furthest = max(self._before, self._taken)
        return Report(
            self._first, self._until, self._programs, self._steps, self._taken, furthest, dict(self._seconds)
        )

    def scalars(self) -> dict[str, float]:
        """Return the report as metrics: `goodput`, and `time/<kind>` in seconds."""
        report = self.report()
        return {"goodput": report.goodput, **{f"time/{kind}": report.seconds[kind] for kind in KINDS}}

    def write_sometimes(self) -> None:
        """Write the report, unless it was written within the last seconds."""
        if self._until - self._written >= self._every:
            self.write()

    def settle_step(self) -> None:
        """Say that the step that has begun is complete, and write the report."""
        self._taken = self._current
        self.write()

    def write(self) -> None:
        """Write the report in the run's folder."""
        self._written = self._until
        if self._run is None:
            return
        # A full disk or a lost folder ends the run where it is to save its state, not here.
        with contextlib.suppress(UserError, OSError):
            write_whole(self._run / FILE, json.dumps(dataclasses.asdict(self.report()), indent=1) + "\n")

    def close(self) -> None:
        """Count what is left as time of what this program was doing, and write the report."""
        self.add(self._rest)
        self.write()
