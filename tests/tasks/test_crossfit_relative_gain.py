"""Scores of several tasks and samples are summed up as the papers do."""

import json
import pathlib
import re

import pytest

from poly_jax.errors import UserError
from poly_jax.tasks.crossfit import average_relative_gain, mean_of_samples, median_of_samples
from poly_jax.tasks.crossfit.relative_gain import main, sweep_scores


def test_samples_are_summed_up_by_their_median_or_their_mean():
    scores = {"a": [10, 50, 30], "b": [1, 2]}
    assert median_of_samples(scores) == {"a": 30, "b": 1.5}
    assert mean_of_samples(scores) == {"a": 30, "b": 1.5}
    assert median_of_samples({"a": [0, 0, 90]}) == {"a": 0}
    assert mean_of_samples({"a": [0, 0, 90]}) == {"a": 30}


def test_the_average_relative_gain_is_the_mean_of_the_tasks_gains_in_percent():
    # +50 % and -10 %.
    assert average_relative_gain({"a": 60, "b": 45}, {"b": 50, "a": 40}) == pytest.approx(20)
    # The scale of the scores does not matter.
    assert average_relative_gain({"a": 0.6, "b": 0.45}, {"a": 0.4, "b": 0.5}) == pytest.approx(20)


def test_a_gain_over_a_negative_correlation_has_the_papers_sign():
    assert average_relative_gain({"a": 10}, {"a": -10}) == pytest.approx(-200)


@pytest.mark.parametrize(
    ("method", "baseline", "complaint"),
    [
        ({"a": 1.0}, {"a": 0.0}, "the baseline of task 'a' is 0"),
        ({"a": 1.0}, {"a": 1.0, "b": 2.0}, r"only one side has \['b'\]"),
        ({}, {}, "only one side has none"),
        ({"a": float("nan")}, {"a": 1.0}, r"the scores of task 'a' are \[nan\]"),
    ],
)
def test_a_gain_that_is_not_defined_is_refused(method, baseline, complaint):
    with pytest.raises(UserError, match=complaint):
        average_relative_gain(method, baseline)


def test_a_task_without_a_score_is_refused():
    for summary in (median_of_samples, mean_of_samples):
        with pytest.raises(UserError, match=r"the scores of task 'a' are \[\]; give at least one"):
            summary({"a": []})


def test_the_example_of_the_docs_prints_what_it_says(capsys):
    page = (pathlib.Path(__file__).resolve().parents[2] / "docs" / "data.md").read_text()
    (example,) = re.findall(r"^```python\n(.*?average_relative_gain.*?)^```", page, re.MULTILINE | re.DOTALL)
    exec(example, {})
    # By hand: (32.1 - 29.6) / 29.6 is 8.446 %, (41.2 - 40.8) / 40.8 is 0.980 %.
    assert capsys.readouterr().out == "4.71 %\n"
    assert "# 4.71 %" in example


def results(path, rows):
    lines = [
        {
            "key": {"method": method, "task": task, "seed": seed, "setup": setup},
            "result": {"metrics": {"score": score}},
        }
        for method, task, seed, score, setup in rows
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def test_the_gain_of_a_sweep_s_method_is_that_of_its_means_over_samples(tmp_path, capsys):
    # Means: 60 over 50 is +20 %, 45 over 50 is -10 %. Medians would give something else.
    rows = [("mhr", "a", seed, score, 1) for seed, score in enumerate((30, 60, 90))]
    rows += [("mhr", "b", seed, score, 1) for seed, score in enumerate((45, 0, 90))]
    rows += [("full", task, seed, 50, 2) for task in "ab" for seed in range(3)]
    path = results(tmp_path / "results.jsonl", rows)
    words = [f"--results={path}", "--method=mhr"]
    assert main([*words, "--baseline=full"]) == 0
    assert capsys.readouterr().out == "2 tasks: ARG of mhr over full is 5.00 %\n"
    assert main([*words, "--baseline=ful"]) == 1
    assert "has results of method 'ful' with 0 configurations" in capsys.readouterr().err


def test_results_of_several_configurations_are_not_mixed(tmp_path):
    path = results(tmp_path / "results.jsonl", [("mhr", "a", 0, 1.0, 1), ("mhr", "a", 0, 2.0, 2)])
    with pytest.raises(UserError, match="results of method 'mhr' with 2 configurations"):
        sweep_scores(path, "mhr")
    with pytest.raises(UserError, match="there is no file"):
        sweep_scores(tmp_path / "absent", "mhr")
