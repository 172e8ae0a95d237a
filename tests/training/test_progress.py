"""A run prints its speed and the remaining time to the terminal."""

import itertools

import pytest

from poly_jax.training import progress
from poly_jax.training.progress import Progress


@pytest.fixture
def clock(monkeypatch):
    """A clock that advances by ten seconds each time it is read."""
    ticks = itertools.count(step=10)
    monkeypatch.setattr(progress.time, "perf_counter", lambda: float(next(ticks)))


def test_speed_and_time_left_are_measured_since_the_last_report(clock, capsys):
    reports = Progress(first_step=1, last_step=101)
    for _ in range(20):
        reports.add(8)
    values = reports.report(21, {"loss": 1.5})
    assert values == {"loss": 1.5, "steps_per_second": 2.0, "examples_per_second": 16.0}
    line = capsys.readouterr().err
    assert line == "step 21/101  loss 1.5000  2.00 steps/s  16.0 examples/s  0:40 left\n"
    assert reports.report(31, {})["steps_per_second"] == 1.0
    assert "1:10 left" in capsys.readouterr().err


def test_hours_are_shown_if_there_are_any(clock, capsys):
    Progress(first_step=0, last_step=36_620).report(20, {})
    assert "5:05:00 left" in capsys.readouterr().err


def test_the_first_step_has_no_speed_yet(clock, capsys):
    values = Progress(first_step=1, last_step=9).report(1, {"loss": 2.0})
    assert values["steps_per_second"] == 0.0
    assert "? left" in capsys.readouterr().err
