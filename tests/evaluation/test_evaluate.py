"""An evaluation reports the tasks' own metrics of its predictions, and names what it cannot evaluate."""

import json
import pathlib
from types import SimpleNamespace

import absl.logging
import numpy as np
import pytest

from poly_jax import cli, configuration
from poly_jax.data.quiet import seqio
from poly_jax.errors import UserError
from poly_jax.evaluation.evaluate import evaluate
from poly_jax.evaluation.report import as_json, not_finite, show, summarised, with_mean
from poly_jax.training.restore import restore
from poly_jax.training.train import train


def read_jsonl(path):
    return [json.loads(line) for line in pathlib.Path(path).read_text().splitlines()]


def column(records, name):
    return [record[name] for record in records]


def test_the_metrics_are_computed_from_the_predictions_that_are_written(evaluated, tasks):
    metrics, predictions = evaluated.metrics, evaluated.predictions
    a, b = predictions["evaluation_a"], predictions["evaluation_b"]
    assert metrics["evaluation_a"] == tasks.overlap(column(a, "target"), column(a, "prediction"))
    assert metrics["evaluation_b"] == {
        **tasks.overlap(column(b, "target"), column(b, "prediction")),
        "log_likelihood": pytest.approx(tasks.log_likelihood(None, column(b, "score"))["log_likelihood"]),
    }
    assert metrics["evaluation_b"]["length"] > 0
    mean = metrics["mean"]
    assert mean["overlap"] == pytest.approx(
        np.mean([metrics[task]["overlap"] for task in ("evaluation_a", "evaluation_b")])
    )
    assert mean["log_likelihood"] == metrics["evaluation_b"]["log_likelihood"]
    assert json.loads((evaluated.folder / "metrics.json").read_text()) == metrics


def test_the_predictions_are_written_beside_their_inputs_and_targets_in_order(evaluated, tasks):
    predictions = evaluated.predictions
    for task in ("evaluation_a", "evaluation_b"):
        inputs, targets = zip(*tasks.texts(task, tasks.sizes[task]), strict=True)
        assert column(predictions[task], "input") == list(inputs)
        wanted = targets if task == "evaluation_a" else [f"<{target}>" for target in targets]
        assert column(predictions[task], "target") == list(wanted)
    assert all("output" not in record for record in predictions["evaluation_a"])
    b = predictions["evaluation_b"]
    assert column(b, "prediction") == [f"<{output}>" for output in column(b, "output")]


def test_each_task_of_a_mixture_is_predicted_by_its_own_adapters(run, evaluated):
    metrics, predictions = evaluated.metrics, evaluated.predictions
    alone = evaluate(run.folder, run.experiment, mixture="evaluation_a_only", output_dir="alone")
    assert read_jsonl("alone/predictions/evaluation_a.jsonl") == predictions["evaluation_a"]
    assert alone == {"evaluation_a": metrics["evaluation_a"], "mean": metrics["evaluation_a"]}


def test_tasks_without_the_split_or_a_metric_are_left_out(evaluated):
    metrics, predictions = evaluated.metrics, evaluated.predictions
    assert set(metrics) == {"evaluation_a", "evaluation_b", "mean"}
    assert set(predictions) == {"evaluation_a", "evaluation_b"}


@pytest.mark.parametrize("place", [".", "checkpoints", "file"])
def test_results_among_a_run_s_own_files_or_in_a_file_are_refused_before_anything_is_predicted(
    run, place, tmp_path, monkeypatch
):
    monkeypatch.setattr("poly_jax.evaluation.evaluate.restore", pytest.fail)
    (tmp_path / "file").write_text("")
    folder = tmp_path / "file" if place == "file" else pathlib.Path(run.folder) / place
    with pytest.raises(UserError, match=r"holds a training run; give|is a file; give a folder"):
        evaluate(run.folder, run.experiment, output_dir=str(folder))


@pytest.mark.parametrize(
    ("mixture", "split", "message"),
    [
        (
            "evaluation_strange",
            "test",
            "does not know 1 of the 2 tasks of .*evaluation_stranger.*poly-jax adapt",
        ),
        ("evaluation_al", "test", "'evaluation_al' .did you mean 'evaluation_all'"),
        (
            "evaluation_all",
            "tests",
            "no task of 'evaluation_all' has a split 'tests'; choose one of empty, test, train",
        ),
        ("evaluation_no_metric", "test", "no task of 'evaluation_no_metric' .* has a metric"),
        ("evaluation_no_test", "empty", "split 'empty' has no example of evaluation_no_test"),
    ],
)
def test_a_mixture_that_cannot_be_evaluated_is_refused_by_name(run, mixture, split, message):
    with pytest.raises(UserError, match=message):
        evaluate(run.folder, run.experiment, mixture=mixture, split=split, output_dir="out")
    assert not pathlib.Path("out").exists()


def test_a_batch_size_of_0_is_refused_by_the_name_of_its_binding(run):
    with pytest.raises(UserError, match=r"^evaluate\.batch_size is 0; it must be at least 1$"):
        evaluate(run.folder, run.experiment, batch_size=0)


def test_the_command_evaluates_a_checkpoint_into_its_run_and_prints_the_table(run, evaluated, capfd):
    assert cli.main(["eval", f"--run={run.restored.step}", "--gin.evaluate.batch_size=4"]) == 0
    shown = capfd.readouterr()
    folder = pathlib.Path(run.folder) / "eval" / "evaluation_all-test"
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics == evaluated.metrics
    rows = [line.replace("│", " ").split() for line in shown.out.splitlines()]
    assert [
        "evaluation_a",
        *(f"{metrics['evaluation_a'][name]:.2f}" for name in ("overlap", "length")),
    ] in rows
    assert ["mean", *(f"{value:.2f}" for value in metrics["mean"].values())] in rows
    assert "left out, without a split 'test': evaluation_no_test" in shown.err
    assert "left out, without a metric: evaluation_no_metric" in shown.err
    assert "12 examples in " in shown.err
    assert str(folder) in shown.err.replace("\n", "")


def test_a_bare_t5_is_evaluated_on_tasks_that_it_never_saw(tasks, tmp_path):
    (tmp_path / "run.gin").write_text(tasks.config)
    bindings = [
        "train.trainable='all'",
        "train.steps=1",
        "Experiment.adapters=None",
        "Data.mixture='evaluation_a_only'",
    ]
    loaded = configuration.load([str(tmp_path / "run.gin")], bindings)
    train(**loaded.arguments("train", output_dir=str(tmp_path / "run")))
    metrics = evaluate(str(tmp_path / "run"), loaded.experiment(), mixture="evaluation_strange", batch_size=4)
    assert set(metrics) == {"evaluation_a", "evaluation_stranger", "mean"}


def test_restoring_logs_nothing_about_the_storage(run):
    records = []
    logger = absl.logging.get_absl_logger()
    handler = absl.logging.PythonHandler()
    handler.emit = records.append
    logger.addHandler(handler)
    try:
        restore(run.experiment, run.folder, run.mesh)
    finally:
        logger.removeHandler(handler)
    assert [record.getMessage() for record in records] == []


def test_numbers_are_averaged_over_the_tasks_that_have_them_and_strings_are_not():
    metrics = {
        "b": {"x": np.float32(1), "y": 4, "note": seqio.metrics.Text("no number")},
        "a": {"x": seqio.metrics.Scalar(2)},
    }
    results = with_mean(metrics)
    assert list(results) == ["a", "b", "mean"]
    assert results == {"a": {"x": 2.0}, "b": {"x": 1.0, "y": 4.0}, "mean": {"x": 1.5, "y": 4.0}}


def test_a_table_in_a_pipe_is_not_cut_to_the_width_of_a_terminal(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    name = "task_" + "x" * 90
    show(with_mean({name: {"exact_match": 12.345}}), "all")
    line = next(line for line in capsys.readouterr().out.splitlines() if name in line)
    assert line.replace("│", " ").split() == [name, "12.35"]


def test_a_number_that_is_not_finite_is_written_as_null_and_named():
    metrics = {"b": {"loss": float("nan"), "note": seqio.metrics.Text("words")}, "a": {"loss": 2.0}}
    results = with_mean(metrics)
    assert json.loads(as_json(results, metrics)) == {
        "a": {"loss": 2.0},
        "b": {"loss": None, "note": "words"},
        "mean": {"loss": None},
    }
    assert not_finite(results) == ["b: loss", "mean: loss"]


def test_a_metric_that_is_not_a_number_is_reported_by_name():
    with pytest.raises(UserError, match=r"metric 'share' of task 'a' is \[1\], which is not a number"):
        with_mean({"a": {"share": [1]}})


def test_a_metric_may_summarise_the_tasks_that_share_it():
    class Counted:
        def __call__(self, targets, predictions):
            return {}

        def summary(self, tasks, metrics):
            return {"overall": {"n": sum(metrics[name]["n"] for name in tasks)}}, ["mind the gap"]

    counted = Counted()
    tasks = [
        SimpleNamespace(name=name, metric_fns=[metric])
        for name, metric in (("a", counted), ("b", counted), ("c", len))
    ]
    metrics = {"a": {"n": 1.0}, "b": {"n": 2.0}, "c": {"n": 4.0}}
    results, notices = summarised(with_mean(metrics), tasks, metrics)
    assert list(results) == ["a", "b", "c", "mean", "overall"]
    assert results["overall"] == {"n": 3.0}
    assert notices == ["mind the gap"]
