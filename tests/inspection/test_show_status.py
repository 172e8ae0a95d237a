"""`poly-jax status` says how far a run is, which checkpoints are intact, and where its time went."""

import contextlib
import json
import re

import filelock
import jax.numpy as jnp
import optax
import pytest
from etils import epath

from poly_jax import cli
from poly_jax.data.task_table import TaskTable
from poly_jax.reporting.results_file import ResultsFile
from poly_jax.training.checkpoints import Checkpoints
from poly_jax.training.run_folder import write_run
from poly_jax.training.saved_step import Origin
from poly_jax.training.time_spent import TimeSpent
from poly_jax.training.update import TrainState


def state_at(step):
    trained = {"encoder": {"skills": {"lora_a": jnp.full((64, 64), float(step))}}}
    return TrainState(jnp.int32(step), trained, optax.adam(0.1).init(trained))


@pytest.fixture
def run(tmp_path):
    """A run of 100 steps that was stopped after 40, with three checkpoints."""
    place = epath.Path(tmp_path / "run")
    with contextlib.closing(Checkpoints(place, 2, "mean/accuracy")) as checkpoints:
        for step, value in ((20, 90.5), (30, 80.0), (40, None)):
            checkpoints.save(state_at(step), TaskTable(("a", "b")), Origin(), value)
    (place / "config.gin").write_text("train.steps = 100\n")
    (place / "data").mkdir()
    for step in (20, 30, 40):
        (place / "data" / f"{step}-host0.json").write_text("{}")
    lines = [
        {"step": 30, "loss": 2.5, "steps_per_second": 1.0},
        {"step": 40, "loss": 2.25, "steps_per_second": 0.5},
        {"step": 40, "eval/mean/accuracy": 80.0},
    ]
    (place / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines) + '{"st')
    now = 1_000_000.0
    spent = TimeSpent(place, 100, 0, now, lambda: now)
    for kind, seconds in (("start_up", 20), ("compile", 60), ("step", 100), ("save_stall", 20)):
        now += seconds
        spent.begin_step(40)
        spent.add(kind)
    spent.settle_step()
    return tmp_path / "run"


def status(run, capsys):
    """The lines that the command prints, with single spaces."""
    assert cli.main(["status", str(run)]) == 0
    return [" ".join(line.replace("│", " ").split()) for line in capsys.readouterr().out.splitlines()]


def test_it_shows_step_speed_checkpoints_and_time(run, capsys):
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    shown = status(run, capsys)
    assert shown[:6] == [
        f"{run}: no program is working on it",
        "step 40 of 100, loss 2.2500 at step 40, 0.50 steps/s, 2:00 left once it goes on",
        "checkpoint 40: intact",
        "checkpoint 30, mean/accuracy 80: intact",
        "checkpoint 20, mean/accuracy 90.5 (best): intact",
        f"newest intact checkpoint: {run / 'checkpoints' / '40'}",
    ]
    assert shown[6] == "2 tasks, a, b"
    assert shown[7].startswith("1 program from 1970-01-12 ")
    for row in (
        "start up 0:20 10.0%",
        "compile 1:00 30.0%",
        "step 1:40 50.0%",
        "save stall 0:20 10.0%",
        "idle 0:00 0.0%",
        "total 3:20 100.0%",
    ):
        assert row in shown
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)


def test_it_names_what_is_damaged_and_the_newest_intact_checkpoint(run, capsys):
    largest = max(
        (run / "checkpoints" / "40" / "optimizer" / "d").iterdir(), key=lambda file: file.stat().st_size
    )
    flip(largest)
    (run / "data" / "30-host0.json").write_text("position")
    (run / "data" / "30-host0.checksums").write_text(json.dumps({"30-host0.json": "0" * 64}))
    shown = status(run, capsys)
    assert shown[2].startswith("checkpoint 40: damaged: ")
    assert "40/optimizer" in shown[2]
    assert "30-host0.json has changed since it was written" in shown[3]
    assert shown[5] == f"newest intact checkpoint: {run / 'checkpoints' / '20'}"


def test_a_checkpoint_without_a_position_is_damaged_unless_nothing_was_trained(run, capsys):
    (run / "data" / "40-host0.json").unlink()
    shown = status(run, capsys)
    assert f"checkpoint 40: damaged: {run / 'data' / '40-host0.json'} is missing" in shown[2]
    assert shown[5] == f"newest intact checkpoint: {run / 'checkpoints' / '30'}"
    imported = run.parent / "imported"
    write_run(str(imported), state_at(0).trained, TaskTable(("a",)), Origin(), "train.steps = 100\n")
    assert "checkpoint 0: intact" in status(imported, capsys)
    with contextlib.closing(Checkpoints(run.parent / "average")) as checkpoints:
        checkpoints.save(state_at(0), TaskTable(("a", "b")), Origin())
    (run.parent / "average" / "config.gin").write_text("")
    assert "checkpoint 0: intact" in status(run.parent / "average", capsys)


def test_it_says_whether_a_program_is_working_on_the_run(run, capsys):
    with filelock.FileLock(run / ".lock"):
        shown = status(run, capsys)
    assert shown[0] == f"{run}: a program is working on it"
    assert shown[1].endswith(" 2:00 left")
    assert status(run, capsys)[0] == f"{run}: no program is working on it"


def test_a_run_that_has_not_saved_anything_has_a_status(tmp_path, capsys):
    (tmp_path / "config.gin").write_text("train.steps = 100\n")
    assert status(tmp_path, capsys) == [
        f"{tmp_path}: no program is working on it",
        "step 0",
        "no checkpoint yet",
    ]


def test_a_sweep_shows_how_many_adaptations_are_scored(tmp_path, capsys):
    results = ResultsFile(epath.Path(tmp_path / "results.jsonl"))
    for method, task in (("mhr", "a"), ("mhr", "b"), ("full", "a")):
        key = {"method": method, "task": task, "seed": 0, "setup": "01234567"}
        results.add(key, {"metrics": {"accuracy": 1.0}})
    with (tmp_path / "results.jsonl").open("a") as file:
        file.write('{"key": ')  # A program is writing the next line.
    before = (tmp_path / "results.jsonl").read_bytes()
    shown = status(tmp_path, capsys)
    assert shown[0] == f"{tmp_path}: a sweep with 3 scored adaptations; the table is not written yet"
    assert {"mhr 2", "full 1"} <= set(shown)
    assert (tmp_path / "results.jsonl").read_bytes() == before
    (tmp_path / "summary.md").write_text("table")
    assert status(tmp_path, capsys)[0].endswith(f"the table is in {tmp_path / 'summary.md'}")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda place: None, "there is no such folder; give the output folder of a run or a sweep"),
        (lambda place: place.write_text(""), "there is no such folder"),
        (lambda place: place.mkdir(), r"holds neither a run \(config.gin\) nor a sweep \(results.jsonl\)"),
        (lambda place: other_results(place), "holds the results of another program"),
        (lambda place: damaged_metrics(place), "metrics.jsonl, line 1.*loss is 'x', and it must be a number"),
    ],
)
def test_a_folder_that_is_no_run_is_refused_in_one_line(tmp_path, capsys, make, message):
    make(tmp_path / "place")
    assert cli.main(["status", str(tmp_path / "place")]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("poly-jax: error: ")
    assert re.search(message, line)


def other_results(place):
    place.mkdir()
    ResultsFile(epath.Path(place / "results.jsonl")).add({"stage": "multitask"}, {"score": 1.0})


def damaged_metrics(place):
    place.mkdir()
    (place / "config.gin").write_text("")
    (place / "metrics.jsonl").write_text('{"step": 1, "loss": "x"}\n')
