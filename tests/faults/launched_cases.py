"""Rows of the fault matrix about `poly-jax launch --target=local`; importing this module adds them."""

import os
import pathlib
import signal
import time
from collections.abc import Sequence

from place import Place, case, same_run, succeeds
from programs import Program, on_hosts, ran, saved, started, train_words


def _launch_words(processes: int, command: Sequence[str]) -> list[str]:
    return ["launch", "--target=local", "--name=job", f"--processes={processes}", "--", *command]


def _children(program: Program) -> list[int]:
    number = program.process.pid
    return [
        int(child) for child in pathlib.Path(f"/proc/{number}/task/{number}/children").read_text().split()
    ]


@case("kill -9", "launch, 4 processes", "a step", "all are started again; the end is that of 4 processes")
def _kills_one_that_is_launched(place: Place) -> None:
    for done in on_hosts(place.folder, train_words("started"), 4):
        succeeds(done)
    with started(place.folder, *_launch_words(4, train_words("launched")), SLOW="0.3") as program:
        program.wait_for("step 3/6")
        os.kill(_children(program)[1], signal.SIGKILL)
        assert program.code() == 0, program.stdout
    assert "restart 1 of at most" in program.stdout
    same_run(place / "launched", place / "started")


@case(
    "SIGTERM",
    "launch, 2 processes",
    "between checkpoints",
    "exit code 42 in 40 s, and no restart; the same command ends as an uninterrupted run",
)
def _stops_what_is_launched(place: Place) -> None:
    words = _launch_words(2, train_words("launched-stopped", "train.save_every=1000"))
    with started(place.folder, *words, SLOW="0.3") as program:
        program.wait_for("step 2/6")
        program.send(signal.SIGTERM)
        assert program.code(within=40) == 42, program.stdout
    assert "restart" not in program.stdout
    assert "Traceback" not in program.stdout
    assert len(saved(place / "launched-stopped")) == 1
    succeeds(ran(place.folder, *words))
    same_run(place / "launched-stopped", place.of_two)


@case(
    "kill -9",
    "launch, 2 processes",
    "a step, launch itself",
    "its processes end; the same command ends as an uninterrupted run",
)
def _kills_what_launches(place: Place) -> None:
    words = _launch_words(2, train_words("launched-killed"))
    with started(place.folder, *words, SLOW="0.3") as program:
        program.wait_for("step 3/6")
        children = _children(program)
        assert len(children) == 2
        program.process.kill()
    end = time.monotonic() + 30
    while any(pathlib.Path(f"/proc/{child}/exe").exists() for child in children):
        assert time.monotonic() < end, "a process outlives the one that launched it"
        time.sleep(0.05)
    done = ran(place.folder, *words)
    succeeds(done)
    assert "resumes from step 2" in done.stdout
    same_run(place / "launched-killed", place.of_two)
