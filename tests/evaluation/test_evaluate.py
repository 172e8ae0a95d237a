"""An evaluation reports the tasks' own metrics of what it predicted, and says what it cannot evaluate."""

import json
import pathlib

import absl.logging
import numpy as np
import pytest

from poly_jax import cli
from poly_jax.errors import UserError
from poly_jax.evaluation.evaluate import evaluate
from poly_jax.evaluation.report import show, with_mean
from poly_jax.training.restore import restore


@pytest.fixture
def results(run):
    """What an evaluation of all of the run's tasks says, and its predictions by task."""
    metrics = evaluate(run.folder, run.experiment, output_dir="out", batch_size=4)
    return metrics, {path.stem: read_jsonl(path) for path in pathlib.Path("out/predictions").iterdir()}


def read_jsonl(path):
    return [json.loads(line) for line in pathlib.Path(path).read_text().splitlines()]


def column(records, name):
    return [record[name] for record in records]


def test_the_metrics_are_those_of_the_predictions_that_are_written(results, tasks):
    metrics, predictions = results
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
    assert json.loads(pathlib.Path("out/metrics.json").read_text()) == metrics


def test_the_predictions_are_written_beside_their_inputs_and_targets_in_order(results, tasks):
    _, predictions = results
    for task in ("evaluation_a", "evaluation_b"):
        inputs, targets = zip(*tasks.texts(task, tasks.sizes[task]), strict=True)
        assert column(predictions[task], "input") == list(inputs)
        wanted = targets if task == "evaluation_a" else [target.upper() for target in targets]
        assert column(predictions[task], "target") == list(wanted)
    assert all("output" not in record for record in predictions["evaluation_a"])
    changed = [record for record in predictions["evaluation_b"] if "output" in record]
    assert changed
    assert all(record["output"].upper() == record["prediction"] for record in changed)


def test_each_task_of_a_mixture_is_predicted_by_its_own_adapters(run, results):
    metrics, predictions = results
    alone = evaluate(run.folder, run.experiment, mixture="evaluation_a_only", output_dir="alone")
    assert read_jsonl("alone/predictions/evaluation_a.jsonl") == predictions["evaluation_a"]
    assert alone == {"evaluation_a": metrics["evaluation_a"], "mean": metrics["evaluation_a"]}


def test_a_batch_size_that_does_not_divide_the_examples_gives_the_same(run, results):
    metrics, predictions = results
    other = evaluate(run.folder, run.experiment, output_dir="other", batch_size=3)
    for task, values in metrics.items():
        assert other[task] == pytest.approx(values)
    for task in ("evaluation_a", "evaluation_b"):
        again = read_jsonl(f"other/predictions/{task}.jsonl")
        assert column(again, "prediction") == column(predictions[task], "prediction")


def test_tasks_without_the_split_or_a_metric_are_left_out(results):
    metrics, predictions = results
    assert set(metrics) == {"evaluation_a", "evaluation_b", "mean"}
    assert set(predictions) == {"evaluation_a", "evaluation_b"}


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
            "no task of 'evaluation_all' has a split 'tests'; there are empty, test, train",
        ),
        ("evaluation_no_metric", "test", "no task of 'evaluation_no_metric' .* has a metric"),
        ("evaluation_no_test", "empty", "evaluation_no_test without an example in split 'empty'"),
    ],
)
def test_what_cannot_be_evaluated_is_one_line(run, mixture, split, message):
    with pytest.raises(UserError, match=message) as error:
        evaluate(run.folder, run.experiment, mixture=mixture, split=split, output_dir="out")
    assert "\n" not in str(error.value)
    assert not pathlib.Path("out").exists()


def test_the_command_writes_into_the_run_and_prints_the_table_only(run, capfd):
    assert cli.main(["eval", f"--run={run.folder}", "--gin.evaluate.batch_size=8"]) == 0
    shown = capfd.readouterr()
    folder = pathlib.Path(run.folder) / "eval" / "evaluation_all-test"
    metrics = json.loads((folder / "metrics.json").read_text())
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


def test_a_checkpoint_is_evaluated_like_its_run(run, results):
    metrics, _ = results
    assert evaluate(str(run.restored.step), run.experiment, output_dir="step") == metrics


def test_restoring_says_nothing_of_how_it_is_stored(run):
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


def test_numbers_are_averaged_over_the_tasks_that_have_them_and_texts_are_not():
    from poly_jax.data.quiet import seqio

    metrics = {
        "b": {"x": np.float32(1), "y": 4, "note": seqio.metrics.Text("no number")},
        "a": {"x": seqio.metrics.Scalar(2)},
    }
    results = with_mean(metrics)
    assert list(results) == ["a", "b", "mean"]
    assert results == {"a": {"x": 2.0}, "b": {"x": 1.0, "y": 4.0}, "mean": {"x": 1.5, "y": 4.0}}


def test_a_table_in_a_pipe_is_not_cut_to_a_terminal(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    name = "task_" + "x" * 90
    show(with_mean({name: {"exact_match": 12.345}}), "all")
    line = next(line for line in capsys.readouterr().out.splitlines() if name in line)
    assert line.replace("│", " ").split() == [name, "12.35"]
