"""The fault matrix: what happens to which program in which phase, and what must be true afterwards."""

import contextlib
import dataclasses
import json
import pathlib
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Callable

import numpy as np
import programs
import pytest
from programs import losses, on_hosts, ran, saved, start_hosts, started, train_words, trained_arrays

from poly_jax.tasks.skillbench.compositions import benchmark
from poly_jax.tasks.skillbench.tasks import registered_name


@dataclasses.dataclass
class Place:
    """A folder with the recipe, in which every case uses names of its own."""

    folder: pathlib.Path
    _whole: pathlib.Path | None = None

    def __post_init__(self) -> None:
        programs.prepare(self.folder)

    def __truediv__(self, name: str) -> pathlib.Path:
        return self.folder / name

    @property
    def whole(self) -> pathlib.Path:
        """A run that nothing interrupted."""
        if self._whole is None:
            succeeds(ran(self.folder, *train_words("whole")))
            self._whole = self.folder / "whole"
        return self._whole

    def copy(self, name: str) -> pathlib.Path:
        shutil.copytree(self.whole, self.folder / name)
        return self.folder / name


@dataclasses.dataclass(frozen=True)
class Case:
    """A row of the matrix; `check` raises an AssertionError where the promise is broken."""

    fault: str
    program: str
    phase: str
    promise: str
    check: Callable[[Place], None]
    sample: bool = False

    def __str__(self) -> str:
        return f"{self.fault}, {self.program}, {self.phase}".replace(" ", "_")


CASES: list[Case] = []


def case(fault: str, program: str, phase: str, promise: str, sample: bool = False):
    def add(check: Callable[[Place], None]) -> Callable[[Place], None]:
        CASES.append(Case(fault, program, phase, promise, check, sample))
        return check

    return add


def succeeds(program: programs.Program) -> None:
    assert program.process.returncode == 0, program.stderr


def fails_in_one_line(program: programs.Program, *texts: str) -> None:
    assert program.process.returncode == 1, (program.process.returncode, program.stderr)
    assert "Traceback" not in program.stderr, program.stderr
    (line,) = [line for line in program.stderr.splitlines() if line.startswith("poly-jax: error:")]
    for text in texts:
        assert text in line, line


def same_run(run: pathlib.Path, other: pathlib.Path) -> None:
    """The last checkpoints and all metrics of two runs are equal to the bit."""
    ours, theirs = trained_arrays(run), trained_arrays(other)
    assert ours.keys() == theirs.keys()
    for name, array in ours.items():
        np.testing.assert_array_equal(array, theirs[name], err_msg=name)
    assert losses(run) == losses(other)


def _stops_between_checkpoints(number: int, code: int) -> Callable[[Place], None]:
    def check(place: Place) -> None:
        run = f"stopped-{code}"
        words = train_words(run, "train.save_every=1000")
        with started(place.folder, *words, SLOW="0.5") as program:
            program.wait_for("step 3/6")
            program.send(number)
            assert program.code(within=25) == code, program.stderr
        assert "is saved, and the same command goes on from there" in program.stderr
        assert "Traceback" not in program.stderr
        (step,) = saved(place / run)
        assert step >= 3
        done = ran(place.folder, *words)
        succeeds(done)
        assert f"resumes from step {step}" in done.stdout
        same_run(place / run, place.whole)

    return check


for _number, _code in ((signal.SIGTERM, 42), (signal.SIGINT, 130)):
    case(
        _number.name,
        "train",
        "between checkpoints",
        f"exit code {_code} in 25 s; no reported step is lost; the rerun is bit-equal",
        sample=_code == 42,
    )(_stops_between_checkpoints(_number, _code))


def _stops_before_the_first_step(run: str, text: str) -> Callable[[Place], None]:
    def check(place: Place) -> None:
        with started(place.folder, *train_words(run)) as program:
            program.wait_for(text)
            program.send(signal.SIGTERM)
            assert program.code(within=25) == 42, program.stderr
        assert "Traceback" not in program.stderr
        succeeds(ran(place.folder, *train_words(run)))
        same_run(place / run, place.whole)

    return check


for _phase, _run, _text in (
    ("start-up", "early", "tasks, "),
    ("first compilation", "compiling", "compiling the training step"),
):
    case("SIGTERM", "train", _phase, "exit code 42 in 25 s; a rerun begins anew")(
        _stops_before_the_first_step(_run, _text)
    )


@case("SIGTERM", "eval", "decoding", "exit code 42 in 25 s; no results are written")
def _stops_evaluation(place: Place) -> None:
    words = ("eval", f"--run={place.whole}", "--output_dir=results")
    with started(place.folder, *words, SLOW_PREDICTIONS="5") as program:
        program.wait_for("predicting")
        program.send(signal.SIGTERM)
        assert program.code(within=25) == 42, program.stderr
    assert "Traceback" not in program.stderr
    assert not (place / "results").exists()


@case("SIGTERM", "adapt", "between checkpoints", "exit code 42 in 25 s; the rerun is bit-equal")
def _stops_adaptation(place: Place) -> None:
    def words(run: str) -> list[str]:
        return ["adapt", f"--run={place.whole}", "--task=two_tasks", f"--output_dir={run}"]

    with started(place.folder, *words("adapted"), SLOW="0.5") as program:
        program.wait_for("step 1/4")
        program.send(signal.SIGTERM)
        assert program.code(within=25) == 42, program.stderr
    succeeds(ran(place.folder, *words("adapted")))
    succeeds(ran(place.folder, *words("adapted-whole")))
    same_run(place / "adapted", place / "adapted-whole")


@case("kill -9", "train", "random moments", "the rerun is bit-equal, with metrics without gap or duplicate")
def _kills(place: Place) -> None:
    whole = place.whole
    chosen = random.Random(0)
    for number in range(20):
        run = f"killed-{number}"
        # Every step saves, so that most moments are in the middle of something.
        words = train_words(run, "train.save_every=1")
        with started(place.folder, *words, SLOW="0.05") as program:
            program.wait_for(f"step {chosen.randint(1, 5)}/6")
            with_luck = chosen.uniform(0, 0.15)
            try:
                program.process.wait(with_luck)
            except subprocess.TimeoutExpired:
                program.process.kill()
        succeeds(ran(place.folder, *words))
        same_run(place / run, whole)


@case("kill -9", "train", "between checkpoints", "the steps that are taken again count as lost time")
def _counts_lost_time(place: Place) -> None:
    words = train_words("lost", "train.save_every=1000", "train.steps=8")
    began = time.time()
    with started(place.folder, *words, SLOW="1.5") as program:
        program.wait_for("step 6/8")
        program.process.kill()
    first = json.loads((place / "lost" / "time_spent.json").read_text())
    assert 4 <= first["furthest_step"] <= 6
    succeeds(ran(place.folder, *words, SLOW="1.5"))
    wall = time.time() - began
    report = json.loads((place / "lost" / "time_spent.json").read_text())
    assert (report["programs"], report["step"], report["furthest_step"]) == (2, 8, 8)
    seconds = report["seconds"]
    # The first step of each program counts as compilation, and each step takes 1.5 s or more.
    assert seconds["lost_to_restarts"] >= 1.5 * (first["furthest_step"] - 1)
    assert seconds["step"] >= first["seconds"]["step"] + 1.5 * (8 - first["furthest_step"])
    total = report["until"] - report["began"]
    assert abs(sum(seconds.values()) - total) < 0.01 * total
    # What is left is the start of Python before, and the end of the process after.
    assert 0.8 * wall < total <= wall


@case("kill -9", "train, 2 processes", "random moments", "exit code 42 of the other; the rerun is bit-equal")
def _kills_one_of_two(place: Place) -> None:
    for done in on_hosts(place.folder, train_words("two"), 2):
        succeeds(done)
    for number, (index, step) in enumerate([(1, 3), (0, 4)]):
        run = f"two-killed-{number}"
        words = train_words(run, "train.save_every=1")
        with contextlib.ExitStack() as stack:
            hosts = start_hosts(stack, place.folder, words, 2, SLOW="0.2")
            hosts[0].wait_for(f"step {step}/6")
            hosts[index].process.kill()
            other = hosts[1 - index]
            assert other.code(within=60) == 42, other.stderr
            assert "Traceback" not in other.stderr
        for done in on_hosts(place.folder, words, 2):
            succeeds(done)
        same_run(place / run, place / "two")


@case("SIGTERM", "train, 2 processes", "between checkpoints", "both save one step and end with 42")
def _stops_two(place: Place) -> None:
    words = train_words("two-stopped", "train.save_every=1000")
    with contextlib.ExitStack() as stack:
        hosts = start_hosts(stack, place.folder, words, 2, SLOW="0.3")
        hosts[0].wait_for("step 2/6")
        # Only one of them is told.
        hosts[1].send(signal.SIGTERM)
        for host in hosts:
            assert host.code(within=25) == 42, host.stderr
            assert "Traceback" not in host.stderr
    assert len(saved(place / "two-stopped")) == 1
    for done in on_hosts(place.folder, words, 2):
        succeeds(done)
    assert [step for step, _ in losses(place / "two-stopped")] == [1, 2, 3, 4, 5, 6]


@case("frozen (SIGSTOP)", "train, 2 processes", "a step", "the other ends within a minute with code 42")
def _freezes_one_of_two(place: Place) -> None:
    with contextlib.ExitStack() as stack:
        hosts = start_hosts(stack, place.folder, train_words("frozen"), 2, SLOW="0.3")
        hosts[0].wait_for("step 2/6")
        hosts[1].send(signal.SIGSTOP)
        assert hosts[0].code(within=60) == 42, hosts[0].stderr


@case("missing host", "train, 2 processes", "start-up", "the other ends within 150 s with code 42")
def _misses_one_of_two(place: Place) -> None:
    with contextlib.ExitStack() as stack:
        hosts = start_hosts(stack, place.folder, train_words("alone"), 2)
        hosts[1].process.kill()
        assert hosts[0].code(within=200) == 42, hosts[0].stderr


@case(
    "2, then 4, then 1 processes", "train", "resuming", "the same examples in the same order; losses to 1e-5"
)
def _changes_hosts(place: Place) -> None:
    for steps, count in ((2, 2), (4, 4), (6, 1)):
        words = train_words("hosts", f"train.steps={steps}", "Optimizer.decay='constant'")
        for done in on_hosts(place.folder, words, count):
            succeeds(done)
    succeeds(ran(place.folder, *train_words("one-host", "Optimizer.decay='constant'")))
    ours, theirs = losses(place / "hosts"), losses(place / "one-host")
    assert [step for step, _ in ours] == [step for step, _ in theirs]
    np.testing.assert_allclose([loss for _, loss in ours], [loss for _, loss in theirs], rtol=1e-5)


@case("none", "eval, 2 processes", "an uneven last batch", "the results of one process, to 1e-5")
def _evaluates_with_two(place: Place) -> None:
    def words(results: str) -> list[str]:
        return ["eval", f"--run={place.whole}", f"--output_dir={results}", "--gin.evaluate.batch_size=24"]

    succeeds(ran(place.folder, *words("by-one")))
    for done in on_hosts(place.folder, words("by-two"), 2):
        succeeds(done)
    by_one, by_two = (
        json.loads((place / name / "metrics.json").read_text()) for name in ("by-one", "by-two")
    )
    assert by_one.keys() == by_two.keys()
    for task, metrics in by_one.items():
        assert metrics == pytest.approx(by_two[task], rel=1e-5)
    for file in (place / "by-one" / "predictions").iterdir():
        assert file.read_text() == (place / "by-two" / "predictions" / file.name).read_text()


@case("none", "sweep, 2 processes", "every method", "the results of one process, to 1e-5")
def _sweeps_with_two(place: Place) -> None:
    names = [registered_name(task.name) for task in benchmark().heldout[:2]]

    def words(results: str) -> list[str]:
        methods = ["--methods", f"{place.whole}:mhr", f"{place.whole}:mhr-z", f"{place.whole}:lorahub"]
        tasks = ["--tasks", *names, "--seeds", "0", "1"]
        return ["sweep", *methods, *tasks, f"--output_dir={results}", "--gin.adapt.steps=3"]

    succeeds(ran(place.folder, *words("swept-by-one")))
    first, second = on_hosts(place.folder, words("swept-by-two"), 2)
    succeeds(first)
    succeeds(second)
    assert "outputs: swept-by-two" in first.stdout
    assert "outputs" not in second.stdout
    by_one, by_two = (
        {
            json.dumps(entry["key"], sort_keys=True): entry["result"]
            for entry in map(json.loads, (place / name / "results.jsonl").read_text().splitlines())
        }
        for name in ("swept-by-one", "swept-by-two")
    )
    assert len(by_one) == 3 * 2 * 2
    assert by_one.keys() == by_two.keys()
    for key, result in by_one.items():
        loss = by_two[key]["loss"]
        # lorahub searches without gradients and has no training loss.
        assert result["loss"] == (None if loss is None else pytest.approx(loss, rel=1e-5))
        assert result["metrics"] == pytest.approx(by_two[key]["metrics"], rel=1e-5)
    assert (place / "swept-by-one/summary.md").read_text() == (place / "swept-by-two/summary.md").read_text()


@case("fewer devices", "eval, infer, adapt", "reading", "a run of model=2 is used on one device, to 1e-5")
def _uses_other_devices(place: Place) -> None:
    two = {"XLA_FLAGS": "--xla_force_host_platform_device_count=2"}
    succeeds(ran(place.folder, *train_words("split", "Partitioning.model=2"), **two))
    (place / "texts.txt").write_text("abc\nxyz\n")
    task = json.loads((place / "split/checkpoints/6/tasks/metadata").read_text())[0]
    outputs = []
    for devices in ({}, two):
        name = f"on-{1 + bool(devices)}"
        words = ["infer", "--run=split", f"--task={task}", "--input=texts.txt", f"--output={name}.txt"]
        succeeds(ran(place.folder, *words, **devices))
        succeeds(ran(place.folder, "eval", "--run=split", f"--output_dir={name}", **devices))
        outputs.append(
            ((place / f"{name}.txt").read_text(), json.loads((place / name / "metrics.json").read_text()))
        )
    (one_text, one_metrics), (two_text, two_metrics) = outputs
    assert one_text == two_text
    for task_name, metrics in one_metrics.items():
        assert metrics == pytest.approx(two_metrics[task_name], rel=1e-5)
    succeeds(ran(place.folder, "adapt", "--run=split", "--task=two_tasks", "--output_dir=split-adapted"))
    done = ran(place.folder, "eval", "--run=split", "--output_dir=no", "--gin.Partitioning.model=2")
    fails_in_one_line(done, "Partitioning.model 2 does not divide 1 device")


@case("not finite", "train", "a step", "exit code 1, step and tasks named; the last finite state is kept")
def _diverges(place: Place) -> None:
    done = ran(place.folder, *train_words("diverged", "train.save_every=1000"), NAN_AT="4")
    fails_in_one_line(
        done, "step 4 is not finite", "loss nan", "skillbench", "checkpoint 3 has the last finite"
    )
    assert saved(place / "diverged") == {3}
    for name, array in trained_arrays(place / "diverged").items():
        assert np.isfinite(array).all(), name
    assert "NaN" not in (place / "diverged" / "metrics.jsonl").read_text()


@case("not finite, skipped", "train", "a step", "the step is counted and left out")
def _skips(place: Place) -> None:
    words = train_words("skipping", "train.non_finite='skip'", "train.report_every=2")
    succeeds(ran(place.folder, *words, NAN_AT="4"))
    text = (place / "skipping" / "metrics.jsonl").read_text().splitlines()
    assert ['"skipped_steps": 1.0' in line for line in text] == [False, True, False]
    assert saved(place / "skipping") == {4, 6}


def _uses_step_4(place: Place, run: pathlib.Path) -> subprocess.CompletedProcess:
    """Resume a run whose checkpoint of step 6 cannot be used; it ends as the uninterrupted run."""
    done = ran(place.folder, *train_words(run.name))
    succeeds(done)
    assert "resumes from step 4" in done.stdout
    same_run(run, place.whole)
    return done


@case(
    "one flipped bit", "train", "resuming", "an earlier checkpoint is used; the end is bit-equal", sample=True
)
def _flips_a_bit(place: Place) -> None:
    run = place.copy("flipped")
    _flip(run / "checkpoints" / "6" / "optimizer")
    done = _uses_step_4(place, run)
    assert "6/optimizer" in done.stderr
    assert {path.name for path in (run / "damaged").iterdir()} == {"6"}


@case("one flipped bit", "eval", "reading", "exit code 1; the file's step and an intact one are named")
def _flips_a_bit_before_eval(place: Place) -> None:
    run = place.copy("flipped-eval")
    _flip(run / "checkpoints" / "6" / "trained")
    done = ran(place.folder, "eval", f"--run={run}", "--output_dir=flipped-results")
    fails_in_one_line(done, "checkpoints/6/trained", "checkpoints/4 is intact")
    assert not (place / "flipped-results").exists()


def _change_position(run: pathlib.Path, step: int) -> None:
    path = run / "data" / f"{step}-host0.json"
    path.write_text(path.read_text().replace('"draws": [', '"draws": [1'))


@case("a changed digit in a position", "train", "resuming", "an earlier checkpoint is used; bit-equal")
def _changes_a_position(place: Place) -> None:
    run = place.copy("position")
    _change_position(run, 6)
    _uses_step_4(place, run)


@case("changed digits in all positions", "train", "resuming", "one line, exit code 1; the position is named")
def _changes_all_positions(place: Place) -> None:
    run = place.copy("positions")
    for step in (4, 6):
        _change_position(run, step)
    fails_in_one_line(ran(place.folder, *train_words("positions")), "-host0.json has changed")


@case("a missing file", "train", "resuming", "an earlier checkpoint is used; the end is bit-equal")
def _loses_a_file(place: Place) -> None:
    run = place.copy("missing")
    shutil.rmtree(run / "checkpoints" / "6" / "checksums")
    _uses_step_4(place, run)


@case("full disk", "train", "saving", "one line, exit code 1; the rerun with room is bit-equal")
def _fills_the_disk(place: Place) -> None:
    disk = place / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(disk)], check=True)
    try:
        (disk / "ballast").write_bytes(bytes(500_000))
        words = train_words("disk/run", "train.save_every=1", "train.keep_checkpoints=100")
        fails_in_one_line(ran(place.folder, *words), "No space left on device")
        (disk / "ballast").unlink()
        subprocess.run(["mount", "-o", "remount,size=64m", str(disk)], check=True)
        succeeds(ran(place.folder, *words))
        same_run(disk / "run", place.whole)
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)


@case("read-only folder", "train", "start-up", "one line, exit code 1")
def _cannot_write(place: Place) -> None:
    disk = place / "read_only"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "ro", "tmpfs", str(disk)], check=True)
    try:
        fails_in_one_line(ran(place.folder, *train_words("read_only/run")), "Read-only file system")
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)


@case("a folder that disappears", "train", "saving", "one line, exit code 1")
def _loses_its_folder(place: Place) -> None:
    with started(place.folder, *train_words("gone", "train.save_every=4"), SLOW="0.5") as program:
        program.wait_for("step 2/6")
        shutil.rmtree(place / "gone")
        program.code()
    fails_in_one_line(program, "gone")


@case("two programs in one folder", "train", "start-up", "the second says so and ends; the first is unharmed")
def _starts_twice(place: Place) -> None:
    with started(place.folder, *train_words("shared"), SLOW="60") as first:
        first.wait_for_file(place / "shared" / "config.gin")
        fails_in_one_line(
            ran(place.folder, *train_words("shared")), "another program is working in", "shared"
        )
    # The first is killed here, and the operating system releases its lock.
    succeeds(ran(place.folder, *train_words("shared")))
    same_run(place / "shared", place.whole)


@case("more steps", "train", "resuming", "goes on from the last step; fewer steps are refused")
def _lengthens(place: Place) -> None:
    words = train_words("longer", "Optimizer.decay='constant'")
    succeeds(ran(place.folder, *words, "--gin.train.steps=3"))
    done = ran(place.folder, *words)
    succeeds(done)
    assert "resumes from step 3" in done.stdout
    assert [step for step, _ in losses(place / "longer")] == [1, 2, 3, 4, 5, 6]
    fails_in_one_line(ran(place.folder, *words, "--gin.train.steps=3"), "has taken 6 steps")


def _flip(item: pathlib.Path) -> None:
    """Flip one bit in the largest file of numbers, in the middle of the file."""
    path = max((file for file in item.rglob("d/*") if file.is_file()), key=lambda file: file.stat().st_size)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)
