"""Several processes or devices compute what one does."""

import json
import shutil

import numpy as np
import pytest
from place import Place, case, fails_in_one_line, same_run, succeeds
from programs import contents, losses, on_hosts, ran, train_words, trained_arrays

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


@case(
    "a checkpoint that one host cannot read",
    "train, 2 processes",
    "resuming",
    "both go on from the one before; the end is bit-equal",
)
def _reads_with_one_of_two(place: Place) -> None:
    run = place / "unreadable"
    shutil.copytree(place.of_two, run)
    first, second = on_hosts(place.folder, train_words("unreadable"), 2, UNREADABLE="6")
    succeeds(first)
    succeeds(second)
    assert "another host cannot read checkpoint 6" in first.stderr
    assert "resumes from step 4" in first.stdout
    assert {path.name for path in (run / "damaged").iterdir()} == {"6"}
    same_run(run, place.of_two)


@case("none", "eval, 2 processes", "an uneven last batch", "the results of one process, to 1e-5")
def _evaluates_with_two(place: Place) -> None:
    def words(results: str) -> list[str]:
        return ["eval", f"--run={place.whole}", f"--output_dir={results}", "--gin.evaluate.batch_size=24"]

    succeeds(ran(place.folder, *words("by-one")))
    place.on_two(words("by-two"))
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


@case("none", "adapt, 2 processes", "mhr, mhr-z, mhr-mu", "the losses and parameters of one process, to 1e-5")
def _adapts_with_two(place: Place) -> None:
    for variant in ("mhr", "mhr-z", "mhr-mu"):

        def words(run: str, variant: str = variant) -> list[str]:
            name = f"{run}-{variant}"
            return [
                "adapt",
                f"--run={place.whole}",
                "--task=two_tasks",
                f"--variant={variant}",
                f"--output_dir={name}",
            ]

        succeeds(ran(place.folder, *words("adapted-by-one")))
        place.on_two(words("adapted-by-two"))
        by_one, by_two = (place / f"adapted-by-{count}-{variant}" for count in ("one", "two"))
        assert len(losses(by_one)) == 4
        np.testing.assert_allclose(losses(by_one), losses(by_two), rtol=1e-5)
        ours, theirs = trained_arrays(by_one), trained_arrays(by_two)
        assert ours.keys() == theirs.keys()
        for name, array in ours.items():
            np.testing.assert_allclose(array, theirs[name], rtol=1e-5, atol=1e-5, err_msg=name)


@case("none", "infer, 2 processes", "an uneven last batch", "the answers and scores of one process, to 1e-5")
def _infers_with_two(place: Place) -> None:
    (place / "eleven.jsonl").write_text("".join(f'{{"input": "abc{n}"}}\n' for n in range(11)))
    task = json.loads((place.whole / "checkpoints/6/tasks/metadata").read_text())[0]

    def words(output: str) -> list[str]:
        return [
            "infer",
            f"--run={place.whole}",
            f"--task={task}",
            "--input=eleven.jsonl",
            f"--output={output}",
        ]

    succeeds(ran(place.folder, *words("one.jsonl")))
    place.on_two(words("two.jsonl"))
    by_one, by_two = (
        [json.loads(line) for line in (place / name).read_text().splitlines()]
        for name in ("one.jsonl", "two.jsonl")
    )
    assert [line["prediction"] for line in by_one] == [line["prediction"] for line in by_two]
    scores = [line["score"] for line in by_one]
    assert len(set(scores)) == 11
    assert scores == pytest.approx([line["score"] for line in by_two], rel=1e-5)


@case("none", "export, routing, 2 processes", "writing", "the first writes the files of one process")
def _writes_with_one_of_two(place: Place) -> None:
    task = json.loads((place.whole / "checkpoints/6/tasks/metadata").read_text())[0]
    for name, words in (
        ("export", ["--format=hugging_face", f"--task={task}", "--output={}"]),
        ("routing", ["--gradients=4", "--output_dir={}"]),
    ):
        for count in ("one", "two"):
            output = f"{name}-by-{count}"
            program = [name, f"--run={place.whole}", *(word.format(output) for word in words)]
            if count == "one":
                succeeds(ran(place.folder, *program))
            else:
                place.on_two(program)
        assert contents(place / f"{name}-by-one") == contents(place / f"{name}-by-two")


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
