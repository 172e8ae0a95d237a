"""Programs that are killed, frozen or never started, alone or as one of several processes."""

import contextlib
import json
import random
import signal
import subprocess
import time

from place import Place, case, same_run, succeeds
from programs import ran, start_hosts, started, train_words


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
def _kills_one_or_both_of_two(place: Place) -> None:
    whole = place.of_two
    chosen = random.Random(1)
    for number in range(20):
        run = f"two-killed-{number}"
        words = train_words(run, "train.save_every=1")
        moments = ["tasks, ", "compiling the training step", *(f"step {step}/6" for step in range(1, 6))]
        killed = chosen.choice([[0], [1], [0, 1]])
        with contextlib.ExitStack() as stack:
            hosts = start_hosts(stack, place.folder, words, 2, SLOW="0.2")
            hosts[0].wait_for(chosen.choice(moments))
            time.sleep(chosen.uniform(0, 0.15))
            for index in killed:
                hosts[index].process.kill()
            for index in {0, 1}.difference(killed):
                assert hosts[index].code(within=60) == 42, hosts[index].stderr
                assert "Traceback" not in hosts[index].stderr, hosts[index].stderr
        place.on_two(words)
        same_run(place / run, whole)


@case("kill -9", "infer, 2 processes", "decoding", "exit code 42 of the other within a minute; no output")
def _kills_one_of_two_that_predict(place: Place) -> None:
    (place / "asked-of-two.txt").write_text("abc\n" * 40)
    task = json.loads((place.whole / "checkpoints/6/tasks/metadata").read_text())[0]
    words = ["infer", f"--run={place.whole}", f"--task={task}", "--input=asked-of-two.txt", "--output=no.txt"]
    for killed in (0, 1):
        with contextlib.ExitStack() as stack:
            hosts = start_hosts(stack, place.folder, words, 2, SLOW_BATCHES="5")
            hosts[0].wait_for("predicting", times=2)
            hosts[killed].process.kill()
            other = hosts[1 - killed]
            assert other.code(within=60) == 42, other.stderr
            assert "Traceback" not in other.stderr, other.stderr
            assert other.stderr.count("lost another host") == 1, other.stderr
        assert not (place / "no.txt").exists()


@case("kill -9", "train", "the first evaluation", "no step is lost; the rerun is bit-equal")
def _kills_while_it_evaluates(place: Place) -> None:
    words = train_words("first-evaluation", "train.eval_every=3", "train.save_every=1000")
    with started(place.folder, *words, SLOW_BATCHES="5") as program:
        program.wait_for("predicting")
        program.wait_for_file(place / "first-evaluation/checkpoints/3")
        program.process.kill()
    succeeds(ran(place.folder, *words))
    succeeds(ran(place.folder, *(word.replace("first-", "whole-") for word in words)))
    same_run(place / "first-evaluation", place / "whole-evaluation")


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
        assert hosts[0].code(within=150) == 42, hosts[0].stderr
