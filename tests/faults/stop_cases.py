"""SIGTERM and SIGINT: what a program that is asked to stop has saved, and how its rerun ends."""

import contextlib
import json
import signal
import time
from collections.abc import Callable, Sequence

import pytest
from place import Place, case, same_run, succeeds
from programs import Program, contents, ran, saved, start_hosts, started, train_words

from poly_jax.tasks.skillbench.compositions import benchmark
from poly_jax.tasks.skillbench.tasks import registered_name


def stops(*programs: Program, told: Sequence[Program] | None = None) -> None:
    """Send SIGTERM to some of a program's processes, all by default; all end with code 42 within 25 s."""
    end = time.monotonic() + 25
    for program in programs if told is None else told:
        program.send(signal.SIGTERM)
    for program in programs:
        assert program.code(within=max(end - time.monotonic(), 0)) == 42, program.stderr
        assert "Traceback" not in program.stderr, program.stderr


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
            stops(program)
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


@case("SIGTERM", "train", "saving", "exit code 42 in 25 s; the checkpoint is completed; bit-equal")
def _stops_while_it_saves(place: Place) -> None:
    words = train_words("saving")
    with started(place.folder, *words, SLOW_SAVING="4") as program:
        program.wait_for("saving")
        stops(program)
    assert max(saved(place / "saving")) >= 2
    assert not [path.name for path in (place / "saving/checkpoints").iterdir() if not path.name.isdecimal()]
    succeeds(ran(place.folder, *words))
    same_run(place / "saving", place.whole)


def _evaluating_words(run: str) -> list[str]:
    """A run whose evaluations have 16 batches each, and which has no regular checkpoints."""
    bindings = ("train.eval_every=2", "train.save_every=1000", "OnlineEvaluation.batch_size=8")
    return train_words(run, *bindings)


# The second evaluation takes a minute, unless it is ended.
_SLOW_SECOND = {"SLOW_BATCHES": "4", "SLOW_AFTER": "17"}


@case("SIGTERM", "train", "an evaluation", "exit code 42 in 25 s; no step is lost; the rerun is bit-equal")
def _stops_while_it_evaluates(place: Place) -> None:
    with started(place.folder, *_evaluating_words("evaluating"), **_SLOW_SECOND) as program:
        program.wait_for("predicting", times=18)
        stops(program)
    assert max(saved(place / "evaluating")) == 4
    succeeds(ran(place.folder, *_evaluating_words("evaluating")))
    succeeds(ran(place.folder, *_evaluating_words("evaluating-whole")))
    same_run(place / "evaluating", place / "evaluating-whole")


@case(
    "SIGTERM",
    "train, 2 processes",
    "an evaluation",
    "both end with 42 in 25 s; no step is lost; the rerun is bit-equal",
)
def _stops_two_that_evaluate(place: Place) -> None:
    words = _evaluating_words("two-evaluating")
    with contextlib.ExitStack() as stack:
        hosts = start_hosts(stack, place.folder, words, 2, **_SLOW_SECOND)
        hosts[0].wait_for("predicting", times=18)
        # Only one of them is told.
        stops(*hosts, told=hosts[1:])
    assert max(saved(place / "two-evaluating")) == 4
    place.on_two(words)
    place.on_two(_evaluating_words("two-evaluating-whole"))
    same_run(place / "two-evaluating", place / "two-evaluating-whole")


@case("SIGTERM", "eval", "decoding", "exit code 42 in 25 s; no results are written")
def _stops_evaluation(place: Place) -> None:
    words = ("eval", f"--run={place.whole}", "--output_dir=results")
    with started(place.folder, *words, SLOW_BATCHES="5") as program:
        program.wait_for("predicting")
        stops(program)
    assert not (place / "results").exists()


@case("SIGTERM", "eval, 2 processes", "decoding", "both end with 42 in 25 s; no results are written")
def _stops_two_that_predict(place: Place) -> None:
    words = ["eval", f"--run={place.whole}", "--output_dir=results-of-two"]
    with contextlib.ExitStack() as stack:
        hosts = start_hosts(stack, place.folder, words, 2, SLOW_BATCHES="5")
        hosts[0].wait_for("predicting", times=2)
        # Only one of them is told, and the other loses it.
        stops(*hosts, told=hosts[1:])
    assert not (place / "results-of-two").exists()


@case("SIGTERM", "infer", "decoding", "exit code 42 in 25 s; an earlier output is as it was")
def _stops_inference(place: Place) -> None:
    (place / "asked.txt").write_text("abc\nxyz\n")
    (place / "answers.txt").write_text("an earlier output\n")
    task = json.loads((place.whole / "checkpoints/6/tasks/metadata").read_text())[0]
    words = ["infer", f"--run={place.whole}", f"--task={task}", "--input=asked.txt", "--output=answers.txt"]
    before = {path.name for path in place.folder.iterdir()}
    with started(place.folder, *words, SLOW_BATCHES="5") as program:
        program.wait_for("predicting")
        stops(program)
    assert (place / "answers.txt").read_text() == "an earlier output\n"
    assert {path.name for path in place.folder.iterdir()} == before
    succeeds(ran(place.folder, *words))
    assert len((place / "answers.txt").read_text().splitlines()) == 2


@case("SIGTERM", "export", "writing", "exit code 42 in 25 s; no file is left; the rerun's files are the same")
def _stops_exports(place: Place) -> None:
    task = json.loads((place.whole / "checkpoints/6/tasks/metadata").read_text())[0]
    outputs = {"backbone": "{}.safetensors", "hugging_face": "{}", "t5x": "{}", "t5x_adapters": "{}"}
    for number, (format, name) in enumerate(outputs.items()):

        def words(output: str, format: str = format) -> list[str]:
            merges = [] if format == "t5x_adapters" else [f"--task={task}"]
            return ["export", f"--run={place.whole}", f"--format={format}", f"--output={output}", *merges]

        output, whole = name.format(f"exported-{number}"), name.format(f"exported-whole-{number}")
        before = {path.name for path in place.folder.iterdir()}
        with started(place.folder, *words(output), SLOW_EXPORT="2") as program:
            program.wait_for("exporting\n", times=2)
            stops(program)
        new = {path.name for path in place.folder.iterdir()} - before
        assert not [path for name in new for path in (place / name).rglob("*")], format
        assert not [name for name in new if (place / name).is_file()], format
        succeeds(ran(place.folder, *words(output)))
        succeeds(ran(place.folder, *words(whole)))
        assert contents(place / output) == contents(place / whole)


@case("SIGTERM", "sweep", "scoring", "exit code 42 in 25 s; what is scored is kept; the rerun adds the rest")
def _stops_a_sweep(place: Place) -> None:
    names = [registered_name(task.name) for task in benchmark().heldout[:2]]

    def words(results: str) -> list[str]:
        method = ["--methods", f"{place.whole}:mhr", "--tasks", *names, "--seeds", "0", "1"]
        return ["sweep", *method, f"--output_dir={results}", "--gin.adapt.steps=3"]

    # Each of the four adaptations has four batches.
    with started(place.folder, *words("swept"), SLOW_BATCHES="5", SLOW_AFTER="9") as program:
        program.wait_for("predicting", times=10)
        stops(program)
    kept = (place / "swept/results.jsonl").read_text()
    assert kept.endswith("\n")
    assert len(kept.splitlines()) == 2
    assert {path.name for path in (place / "swept").iterdir()} <= {"results.jsonl", ".lock"}
    succeeds(ran(place.folder, *words("swept")))
    succeeds(ran(place.folder, *words("swept-whole")))
    ours, theirs = ((place / name / "results.jsonl").read_text() for name in ("swept", "swept-whole"))
    assert ours.startswith(kept)
    ours, theirs = ([json.loads(line) for line in text.splitlines()] for text in (ours, theirs))
    assert [line["key"] for line in ours] == [line["key"] for line in theirs]
    for our, their in zip(ours, theirs, strict=True):
        assert our["result"]["loss"] == pytest.approx(their["result"]["loss"], rel=1e-5)
        assert our["result"]["metrics"] == pytest.approx(their["result"]["metrics"], rel=1e-5)
    assert (place / "swept/summary.md").read_text() == (place / "swept-whole/summary.md").read_text()


@case("SIGTERM", "adapt", "between checkpoints", "exit code 42 in 25 s; the rerun is bit-equal")
def _stops_adaptation(place: Place) -> None:
    def words(run: str) -> list[str]:
        return ["adapt", f"--run={place.whole}", "--task=two_tasks", f"--output_dir={run}"]

    with started(place.folder, *words("adapted"), SLOW="0.5") as program:
        program.wait_for("step 1/4")
        stops(program)
    succeeds(ran(place.folder, *words("adapted")))
    succeeds(ran(place.folder, *words("adapted-whole")))
    same_run(place / "adapted", place / "adapted-whole")


@case(
    "SIGTERM",
    "train, 2 processes",
    "between checkpoints",
    "both save one step and end with 42 in 25 s; the rerun is bit-equal",
)
def _stops_two(place: Place) -> None:
    words = train_words("two-stopped", "train.save_every=1000")
    with contextlib.ExitStack() as stack:
        hosts = start_hosts(stack, place.folder, words, 2, SLOW="0.3")
        hosts[0].wait_for("step 2/6")
        # Only one of them is told.
        stops(*hosts, told=hosts[1:])
    assert len(saved(place / "two-stopped")) == 1
    place.on_two(words)
    same_run(place / "two-stopped", place.of_two)


@case("SIGTERM", "train, 2 processes", "start-up", "both end with 42 in 25 s; a rerun begins anew")
def _stops_two_that_start(place: Place) -> None:
    for told, text in (("both", "tasks, "), ("first", "compiling the training step"), ("second", "tasks, ")):
        words = train_words(f"two-early-{told}")
        with contextlib.ExitStack() as stack:
            hosts = start_hosts(stack, place.folder, words, 2)
            hosts[0].wait_for(text)
            stops(*hosts, told={"both": hosts, "first": hosts[:1], "second": hosts[1:]}[told])
        place.on_two(words)
        same_run(place / f"two-early-{told}", place.of_two)
