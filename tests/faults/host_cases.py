"""Several processes or devices compute what one does."""

import json

import numpy as np
import pytest
from place import Place, case, fails_in_one_line, succeeds
from programs import losses, on_hosts, ran, train_words

from poly_jax.tasks.skillbench.compositions import benchmark
from poly_jax.tasks.skillbench.tasks import registered_name


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
