"""Tests of exact match and ROUGE-L against rules and published figures."""

import collections
import json
import subprocess
import sys
from types import SimpleNamespace

import pytest

from poly_jax.data.quiet import seqio
from poly_jax.errors import UserError
from poly_jax.tasks.super_natural_instructions import aggregate
from poly_jax.tasks.super_natural_instructions.metrics import (
    Scores,
    all_references,
    exact_match,
    rouge_l,
    scores,
)
from poly_jax.tasks.super_natural_instructions.rouge_tokens import gpt2_tokens

ENGLISH = {"rougeL_tokens": seqio.metrics.Text("english")}


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
def test_exact_match_ignores_case_punctuation_and_spacing_but_not_articles(reference, prediction, score):
    assert exact_match([[reference]], [prediction]) == {"exact_match": score}


@pytest.mark.parametrize(
    ("reference", "prediction", "score"),
    [
        # The longest common subsequence is "the cat": precision 2/2, recall 2/4.
        ("the cat sat down", "the cat", 100 * 2 / 3),
        # Stemming turns running and runs into "run".
        ("Running dogs", "runs dog", 100.0),
        ("b a", "a b", 50.0),
        ("", "anything", 0.0),
        ("да", "да", 0.0),
    ],
)
def test_rouge_l_is_the_f_measure_of_the_longest_common_subsequence_of_stems(reference, prediction, score):
    assert rouge_l([[reference]], [prediction], "english")["rougeL"] == pytest.approx(score)


@pytest.mark.parametrize(
    "text",
    [
        "پایتخت ایران تهران است",
        "भारत की राजधानी दिल्ली है",
        "中国的首都是北京",
        "над 25 души",
        "ไทย",
        "?!",
        "the cat",
    ],
)
def test_equal_texts_of_any_script_have_rouge_l_100(text):
    assert rouge_l([[text]], [text])["rougeL"] == 100.0


def test_a_wrong_answer_in_another_script_that_shares_a_number_has_a_low_score():
    # One word is common to the five words and the four words: precision 1/4, recall 1/5.
    result = rouge_l([["над 25 души се натровиха"]], ["ЦСКА победи с 25"])
    assert result["rougeL"] == pytest.approx(100 * 2 / 9)
    assert result["rougeL_tokens"].textdata == "words"


@pytest.mark.parametrize(
    ("references", "tokens", "compared"),
    [
        (["the cat", "naïve café"], "auto", "english"),
        (["Trả lời câu hỏi"], "auto", "english"),
        (["столица", "the"], "auto", "words"),
        (["столица"], "english", "english (blind to this script)"),
        (["the cat"], "words", "words"),
        ([""], "auto", "english"),
    ],
)
def test_the_tokens_that_are_compared_are_chosen_for_each_task_and_recorded(references, tokens, compared):
    result = rouge_l([[reference] for reference in references], references, tokens)
    assert result["rougeL_tokens"].textdata == compared


@pytest.fixture
def merges(tmp_path):
    """Three merges in GPT-2's file format, in which Ġ stands for a blank, and Ð and ½ for the bytes of н."""
    path = tmp_path / "merges.txt"
    path.write_text("#version: 0.2\nt h\nĠ th\nÐ ½\n", encoding="utf-8")
    return str(path)


def test_gpt2s_byte_pairs_are_merged_in_the_order_of_the_file_and_lose_their_blank(merges):
    # By hand from the file: "the" is th+e, " the" is Ġth+e, н is one merged pair and а is two bytes.
    assert gpt2_tokens(merges).tokenize("the the") == ["th", "e", "th", "e"]
    assert gpt2_tokens(merges).tokenize("на, it's") == ["Ð½", "Ð", "°", ",", "", "i", "t", "'", "s"]


def test_gpt2s_tokens_are_compared_where_they_are_asked_for_or_needed(merges):
    # The tokens are "Ð½" "Ð" "°" and "Ð½" "Ð" "¾": the longest common subsequence has two of three.
    for tokens in ("gpt2", "auto"):
        result = rouge_l([["на"]], ["но"], tokens, merges)
        assert result["rougeL"] == pytest.approx(100 * 2 / 3)
        assert result["rougeL_tokens"].textdata == "gpt2"
    assert rouge_l([["the"]], ["the"], "auto", merges)["rougeL_tokens"].textdata == "english"


def test_gpt2s_tokens_need_the_file_of_its_merges(tmp_path):
    with pytest.raises(UserError, match="'gpt2', which needs gpt2_merges"):
        Scores("gpt2", None)
    (tmp_path / "other.txt").write_text("one two three\n")
    with pytest.raises(UserError, match=r"other\.txt is not a list of merges"):
        Scores("auto", str(tmp_path / "other.txt"))
    with pytest.raises(UserError, match=r"rouge_tokens is 'bytes'; use one of 'auto', 'english'"):
        Scores("bytes", None)


def test_a_summary_has_the_official_overall_figures_and_a_notice_about_their_limits():
    metric = Scores("auto", None)
    metrics = {
        "big": metric([["yes"]] * 3, ["yes", "yes", "no"]),
        "small": metric([["столица"]], ["город"]),
        "unsorted": metric([["no"]], ["no"]),
    }
    known = {"big": ("a",), "small": ("b", "a"), "unsorted": ()}
    tasks = {name: SimpleNamespace(source=SimpleNamespace(categories=of)) for name, of in known.items()}
    groups, notices = metric.summary(tasks, metrics)
    assert groups == {
        "overall": {"exact_match": 60.0, "rougeL": 60.0, "instances": 5.0},
        "category a": {
            "exact_match": pytest.approx(200 / 3),
            "rougeL": pytest.approx(200 / 3),
            "instances": 3.0,
        },
        "category b": {"exact_match": 0.0, "rougeL": 0.0, "instances": 1.0},
    }
    (notice,) = notices
    assert "rougeL of small, in another script, compares words" in notice
    blind = Scores("english", None)
    _, (notice,) = blind.summary({"small": tasks["small"]}, {"small": blind([["столица"]], ["столица"])})
    assert "says nothing about small" in notice


def test_the_best_matching_reference_counts():
    targets, predictions = [["no", "maybe so"], ["yes"]], ["maybe so", "no"]
    assert scores(targets, predictions) == {"exact_match": 50.0, "rougeL": 50.0, "instances": 2.0, **ENGLISH}


def test_without_predictions_the_scores_are_zero():
    assert scores([], []) == {"exact_match": 0.0, "rougeL": 0.0, "instances": 0.0, **ENGLISH}


def test_a_target_becomes_the_list_of_all_its_references():
    example = {"references": [b"yes", "né".encode()]}
    assert all_references("yes", example=example, is_target=True) == ["yes", "né"]
    assert all_references("text", example=example, is_target=False) == "text"


def test_the_mean_over_tasks_is_weighted_by_instances():
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
    """Return the published category of one of the 35 cross-lingual tasks, which its name gives."""
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
    # They were computed with the tokens of the English track for all scripts.
    per_task = {task: scores(*zip(*pairs, strict=True), "english") for task, pairs in rows.items()}
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


def test_the_recorded_case_of_other_scripts_has_sensible_scores(shared_cases):
    program = shared_cases / "sni_non_english_rouge" / "try.py"
    run = subprocess.run([sys.executable, program], capture_output=True, text=True, check=True)
    found = {
        line[:30].strip(): float(line.split("'rougeL': ")[1].split(",")[0])
        for line in run.stdout.splitlines()
    }
    assert found.pop("bulgarian wrong, same digit") < 25
    assert found.pop("empty") == 0.0
    assert len(found) == 6
    assert set(found.values()) == {100.0}
