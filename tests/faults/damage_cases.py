"""Numbers that are not finite, damaged files, full disks, and folders that two programs want."""

import pathlib
import shutil
import subprocess

import numpy as np
from place import Place, case, fails_in_one_line, same_run, succeeds
from programs import losses, ran, saved, started, train_words, trained_arrays


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
        fails_in_one_line(ran(place.folder, *train_words("read_only/run")), "cannot be written, because")
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
