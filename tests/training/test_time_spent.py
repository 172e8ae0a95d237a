"""The wall time of a run is divided into kinds without a gap, over programs that were killed too."""

import json

import pytest

from poly_jax import program_start
from poly_jax.training.time_spent import FILE, KINDS, TimeSpent, read_report


class Clock:
    def __init__(self, now):
        self.now = now

    def __call__(self):
        return self.now


def program(folder, clock, step=0, began=None, steps=10):
    return TimeSpent(folder, steps, step, clock() if began is None else began, clock)


def spend(spent, clock, kind, seconds):
    clock.now += seconds
    spent.add(kind)


def takes_step(spent, clock, step, seconds):
    spent.begin_step(step)
    spend(spent, clock, "step", seconds)


@pytest.fixture
def clock():
    return Clock(1_000_000.0)


@pytest.fixture
def folder(tmp_path):
    from etils import epath

    return epath.Path(tmp_path)


def nonzero(report):
    return {kind: seconds for kind, seconds in report.seconds.items() if seconds}


def test_all_time_since_the_program_began_is_counted_as_what_it_was_spent_on(folder, clock):
    spent = program(folder, clock, began=clock() - 12)
    spend(spent, clock, "start_up", 3)
    for number, (data, step) in enumerate([(1, 4), (2, 5)], 1):
        spent.begin_step(number)
        spend(spent, clock, "data_wait", data)
        spend(spent, clock, "compile" if number == 1 else "step", step)
    spend(spent, clock, "evaluation", 6)
    spend(spent, clock, "save_stall", 7)
    spent.settle_step()
    report = read_report(folder)
    assert nonzero(report) == {
        "start_up": 15,
        "data_wait": 3,
        "compile": 4,
        "step": 5,
        "evaluation": 6,
        "save_stall": 7,
    }
    assert sum(report.seconds.values()) == report.until - report.began == 40
    assert (report.step, report.furthest_step, report.steps, report.programs) == (2, 2, 10, 1)
    assert report.goodput == 5 / 40
    assert spent.scalars() == {
        "goodput": 5 / 40,
        **{f"time/{kind}": report.seconds[kind] for kind in KINDS},
    }


def test_steps_that_are_taken_again_after_a_kill_are_lost_and_the_pause_is_idle(folder, clock):
    first = program(folder, clock)
    for step in range(1, 7):
        takes_step(first, clock, step, 10)
        first.write_sometimes()
    # It is killed in step 7, and its newest checkpoint is that of step 4. The seventh step was never written.
    clock.now += 30
    second = program(folder, clock, step=4)
    spend(second, clock, "start_up", 2)
    for step in range(5, 9):
        takes_step(second, clock, step, 10)
        if step == 5:
            spend(second, clock, "save_stall", 1)
            spend(second, clock, "evaluation", 3)
    second.settle_step()
    report = read_report(folder)
    # What the first program is known to have taken are 5 steps: the sixth may not have been complete.
    assert nonzero(report) == {"step": 60 + 30, "idle": 30, "start_up": 2, "lost_to_restarts": 10 + 1 + 3}
    assert sum(report.seconds.values()) == report.until - report.began
    assert (report.step, report.furthest_step, report.programs) == (8, 8, 2)


def test_a_restart_from_an_earlier_step_does_not_hide_how_far_the_run_was(folder, clock):
    first = program(folder, clock)
    takes_step(first, clock, 8, 10)
    first.settle_step()
    second = program(folder, clock, step=2)
    takes_step(second, clock, 3, 10)
    second.settle_step()
    third = program(folder, clock, step=2)
    for step in (3, 8, 9):
        takes_step(third, clock, step, 5)
    third.settle_step()
    assert nonzero(read_report(folder)) == {"step": 10 + 5, "lost_to_restarts": 10 + 5 + 5}


def test_a_program_on_a_machine_whose_clock_is_behind_counts_no_negative_time(folder, clock):
    takes_step(first := program(folder, clock), clock, 1, 10)
    first.close()
    clock.now -= 500
    second = program(folder, clock, step=1)
    takes_step(second, clock, 2, 10)
    second.close()
    report = read_report(folder)
    assert nonzero(report) == {"step": 20}
    assert sum(report.seconds.values()) == report.until - report.began


def test_the_file_is_written_at_most_once_a_second_between_checkpoints(folder, clock):
    spent = program(folder, clock)
    spent.write()
    for step in range(1, 10):
        takes_step(spent, clock, step, 0.125)
        spent.write_sometimes()
    assert read_report(folder).until - read_report(folder).began == 1.0


@pytest.mark.parametrize("damage", ["", "{", '{"began": 1}', '{"began": "x", "seconds": {}}', "[1]"])
def test_a_damaged_report_is_begun_anew_and_does_not_stop_the_run(folder, clock, damage, capsys):
    (folder / FILE).write_text(damage)
    takes_step(spent := program(folder, clock), clock, 1, 10)
    spent.close()
    assert f"{folder / FILE}" in capsys.readouterr().err
    assert nonzero(read_report(folder)) == {"step": 10}


def test_a_report_that_cannot_be_written_does_not_stop_the_run(folder, clock):
    takes_step(spent := program(folder / "gone", clock), clock, 1, 10)
    spent.close()
    assert not (folder / "gone").exists()


@pytest.mark.parametrize(
    ("done", "doing"), [([], "start_up"), (["start_up"], "compile"), (["start_up", "compile"], "step")]
)
def test_a_program_that_is_stopped_counts_its_last_moments_as_what_it_was_doing(folder, clock, done, doing):
    spent = program(folder, clock)
    for kind in done:
        spent.begin_step(1)
        spend(spent, clock, kind, 3)
    clock.now += 5
    spent.close()
    assert nonzero(read_report(folder)) == {**dict.fromkeys(done, 3), doing: 5}


def test_the_file_is_json_that_other_programs_can_read(folder, clock):
    takes_step(spent := program(folder, clock), clock, 1, 2.5)
    spent.close()
    content = json.loads((folder / FILE).read_text())
    assert content["seconds"] == {**dict.fromkeys(KINDS, 0.0), "step": 2.5}
    assert [path.name for path in folder.iterdir()] == [FILE]


def test_only_the_first_work_of_a_program_includes_its_start(monkeypatch):
    monkeypatch.setattr(program_start, "_IMPORTED", 5.0)
    before = program_start.clock()
    assert program_start.claim() >= before  # Nobody said that this process is a program.
    program_start.mark()
    assert program_start.claim() == 5.0
    assert program_start.claim() >= before
