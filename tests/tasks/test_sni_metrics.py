"""Tests of exact match and ROUGE-L against rules and published figures."""

import collections
import json

import pytest

from poly_jax.tasks.super_natural_instructions import aggregate
from poly_jax.tasks.super_natural_instructions.metrics import all_references, exact_match, rouge_l, scores


@pytest.mark.parametrize(
    ("reference", "prediction", "score"),
    [
        ("The cat.", "the  cat", 100.0),
        ("cat", "the cat", 0.0),
        ("don't", "dont", 100.0),
        ("a-b", "a b", 0.0),
        ("", "?!", 100.0),
    ],
)
def test_exact_match_ignores_case_punctuation_and_spacing_but_no_articles(reference, prediction, score):
    assert exact_match([[reference]], [prediction]) == {"exact_match": score}


@pytest.mark.parametrize(
    ("reference", "prediction", "score"),
    [
        # Longest common subsequence "the cat": precision 2/2, recall 2/4.
        ("the cat sat down", "the cat", 100 * 2 / 3),
        # Stemmed: running and runs are "run".
        ("Running dogs", "runs dog", 100.0),
        ("b a", "a b", 50.0),
        ("", "anything", 0.0),
        ("да", "да", 0.0),
    ],
)
def test_rouge_l_is_the_f_measure_of_the_longest_common_subsequence_of_stems(reference, prediction, score):
    assert rouge_l([[reference]], [prediction])["rougeL"] == pytest.approx(score)


def test_the_reference_that_suits_best_counts():
    targets, predictions = [["no", "maybe so"], ["yes"]], ["maybe so", "no"]
    assert scores(targets, predictions) == {"exact_match": 50.0, "rougeL": 50.0, "instances": 2.0}


def test_nothing_to_score_is_zero():
    assert scores([], []) == {"exact_match": 0.0, "rougeL": 0.0, "instances": 0.0}


def test_targets_become_all_their_references():
    example = {"references": [b"yes", "né".encode()]}
    assert all_references("yes", example=example, is_target=True) == ["yes", "né"]
    assert all_references("text", example=example, is_target=False) == "text"


def test_the_mean_over_tasks_weighs_instances():
    per_task = {
        "big": {"exact_match": 100.0, "rougeL": 80.0, "instances": 300.0},
        "small": {"exact_match": 0.0, "rougeL": 40.0, "instances": 100.0},
        "other": {"exact_match": 50.0, "rougeL": 50.0, "instances": 100.0},
    }
    results = aggregate(per_task, {"big": "x", "small": "x", "other": "y"})
    assert results == {
        "all": {"exact_match": 70.0, "rougeL": 66.0, "instances": 500.0},
        "x": {"exact_match": 75.0, "rougeL": 70.0, "instances": 400.0},
        "y": {"exact_match": 50.0, "rougeL": 50.0, "instances": 100.0},
    }


def category(task):
    """The published categories of the 35 cross-lingual tasks, which their names tell."""
    words = {
        "copa": "cause_effect_classification",
        "entailment": "textual_entailment",
        "summarization": "title_generation",
        "persianqa": "answerability_classification",
    }
    return next(name for word, name in words.items() if word in task)


def test_published_figures_are_reproduced(shared_data):
    folder = shared_data / "sni" / "golden_metrics"
    expected = json.loads((folder / "xlingual_tk_instruct_3b_expected_metrics.json").read_text())
    rows = collections.defaultdict(list)
    for line in (folder / "xlingual_tk_instruct_3b_predictions.jsonl").read_text().splitlines():
        row = json.loads(line)
        rows[row["task"]].append((row["references"], row["prediction"]))
    per_task = {task: scores(*zip(*pairs, strict=True)) for task, pairs in rows.items()}
    groups = aggregate(per_task, {task: category(task) for task in per_task})
    ours = {f"_for_{name}": result for name, result in {**per_task, **groups}.items()}
    ours[""] = ours.pop("_for_all")
    assert len(per_task) == 35
    assert len(groups) == 1 + 4
    checked = 0
    for suffix, result in ours.items():
        for metric in ("exact_match", "rougeL"):
            assert result[metric] == pytest.approx(expected[f"predict_{metric}{suffix}"], abs=1e-3), suffix
            checked += 1
    assert checked == 2 * (35 + 4 + 1)
