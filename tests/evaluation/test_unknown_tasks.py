"""Tasks that a run does not know are answered by the mean of all rows, or as the most similar known task."""

import dataclasses
import json
import pathlib
import re

import numpy as np
import pytest
from sklearn.feature_extraction.text import TfidfVectorizer

from poly_jax import cli
from poly_jax.adapters.config import Adapters
from poly_jax.adapters.lora import LoRA
from poly_jax.data.task_table import TaskTable
from poly_jax.errors import UserError
from poly_jax.evaluation.evaluate import evaluate
from poly_jax.evaluation.infer import infer
from poly_jax.evaluation.task_texts import nearest, read_descriptions, regression_shares
from poly_jax.evaluation.unknown_tasks import UnknownTasks, serves_any_task, with_shares
from poly_jax.routing.arrow import ArrowRouter
from poly_jax.routing.fixed import AverageRouter, PrivateRouter, SharedRouter
from poly_jax.routing.learned import LearnedRouter
from poly_jax.routing.phatgoose import PHATGOOSERouter
from poly_jax.routing.smear import SMEARRouter
from poly_jax.routing.token_router import TokenRouter


def answers(run, task, source="asked.txt", **options):
    infer(run.folder, task, source, "answers.jsonl", run.experiment, **options)
    return [json.loads(line)["score"] for line in pathlib.Path("answers.jsonl").read_text().splitlines()]


@pytest.fixture
def asked(run):
    """Texts that begin with the letter of task b, in a file."""
    pathlib.Path("asked.txt").write_text("b: abcd\nb: fade\n")


def test_the_nearest_task_answers_for_an_unknown_one(run, asked, capsys):
    expected = answers(run, "evaluation_b")
    capsys.readouterr()
    assert answers(run, "unknown", unknown="nearest") == pytest.approx(expected, abs=1e-5)
    told = capsys.readouterr().err
    assert "unknown: not known, answered as evaluation_b (similarity of texts 0." in told


def test_descriptions_take_the_place_of_examples(run, asked, capsys):
    known = {name: "counts words" for name in ("evaluation_b", "evaluation_no_metric", "evaluation_no_test")}
    described = {**known, "evaluation_a": "translates into French", "new": "a French translation"}
    pathlib.Path("tasks.json").write_text(json.dumps(described))
    expected = answers(run, "evaluation_a")
    words = ["infer", f"--run={run.folder}", "--task=new", "--input=asked.txt", "--output=answers.jsonl"]
    assert cli.main([*words, "--unknown=nearest", "--descriptions=tasks.json"]) == 0
    found = [json.loads(line)["score"] for line in pathlib.Path("answers.jsonl").read_text().splitlines()]
    assert found == pytest.approx(expected, abs=1e-5)
    assert "answered as evaluation_a" in capsys.readouterr().err


def test_the_average_is_the_mean_of_the_weights_of_all_tasks(run, trained, asked, capsys):
    found = answers(run, "unknown", unknown="average")
    assert "unknown: not known, answered by the average of 4 rows" in capsys.readouterr().err
    one = [answers(run, f"evaluation_{name}") for name in "ab"]
    assert found != pytest.approx(one[0], abs=1e-3)
    assert found != pytest.approx(one[1], abs=1e-3)
    router = trained.restored.parameters["encoder"]["layers_0"]["mlp"]["wo"]["router"]["logits"]
    model = with_shares(trained.restored, ((0.25,) * 4,), TaskTable(("unknown",))).model
    sizes = model.adapters.sizes
    weights = model.adapters.router.weights({"logits": router}, np.zeros(1, int), sizes, None)
    w = 1 / (1 + np.exp(-np.asarray(router, np.float64)))
    np.testing.assert_allclose(weights[0], (w / w.sum(-1, keepdims=True)).mean(0), rtol=1e-5)


def test_an_evaluation_uses_the_own_rows_of_known_tasks(run, evaluated, capsys):
    results = evaluate(run.folder, run.experiment, mixture="evaluation_strange", unknown="average")
    assert set(results) == {"evaluation_a", "evaluation_stranger", "mean"}
    assert results["evaluation_a"] == pytest.approx(evaluated.metrics["evaluation_a"])
    folder = pathlib.Path(run.folder) / "eval" / "evaluation_strange-test-average"
    assert (folder / "metrics.json").exists()
    assert "evaluation_stranger: not known, answered by the average of 4 rows" in capsys.readouterr().err
    # The inputs of the stranger have no word in common with those of any known task.
    described = {"evaluation_stranger": "counts letters", "evaluation_b": "counts words", "other": "counts"}
    pathlib.Path("tasks.json").write_text(json.dumps(described))
    options = {"unknown": "nearest", "descriptions": "tasks.json"}
    evaluate(run.folder, run.experiment, mixture="evaluation_strange", **options)
    told = capsys.readouterr().err
    assert "evaluation_stranger: not known, answered as evaluation_b" in told
    assert "tasks.json: other: no task of the run, and not asked for" in told


def test_an_unknown_task_is_refused_with_the_ways_to_answer(run, asked, capsys):
    words = ["infer", f"--run={run.folder}", "--task=unknown", "--input=asked.txt", "--output=answers.txt"]
    assert cli.main(words) == 1
    told = capsys.readouterr().err
    assert "task 'unknown' is not in the table of 4 tasks (evaluation_a, evaluation_b, " in told
    assert "--unknown=average" in told
    assert "--unknown=nearest" in told
    ways = r"--mixture=evaluation_a.* answer with --zero_shot, --unknown=average, --unknown=nearest or"
    with pytest.raises(UserError, match=ways):
        evaluate(run.folder, run.experiment, mixture="evaluation_strange")
    with pytest.raises(UserError, match="--zero_shot and --unknown are two ways"):
        evaluate(run.folder, run.experiment, unknown="average", zero_shot=True)


@pytest.mark.parametrize("unknown", [None, "average"])
def test_descriptions_that_nothing_would_read_are_refused(run, asked, unknown):
    with pytest.raises(UserError, match=r"--descriptions=none\.json is for --unknown=nearest and"):
        answers(run, "evaluation_a", unknown=unknown, descriptions="none.json")
    with pytest.raises(UserError, match=r"--descriptions=none\.json is for --unknown=nearest and"):
        evaluate(run.folder, run.experiment, unknown=unknown, descriptions="none.json")


def test_a_task_with_a_private_skill_of_its_own_is_refused(run, asked):
    adapters = dataclasses.replace(run.experiment.adapters, private_skill=LoRA())
    experiment = dataclasses.replace(run.experiment, adapters=adapters)
    with pytest.raises(UserError, match="each task has a private skill beside its row"):
        infer(run.folder, "unknown", "asked.txt", "answers.txt", experiment, unknown="average")


@pytest.mark.parametrize("router", [SharedRouter(), ArrowRouter(), None])
def test_a_way_to_find_a_row_is_refused_where_no_task_needs_one(run, asked, router):
    adapters = router and Adapters(LoRA(), router, n_tasks=4)
    experiment = dataclasses.replace(run.experiment, adapters=adapters)
    told = "--unknown finds a row .* and this run answers any task without one; leave it out"
    with pytest.raises(UserError, match=told):
        infer(run.folder, "unknown", "asked.txt", "answers.txt", experiment, unknown="average")
    with pytest.raises(UserError, match=told):
        evaluate(run.folder, experiment, mixture="evaluation_strange", unknown="nearest")


def test_adapters_that_do_not_depend_on_the_task_need_no_row():
    assert serves_any_task(None)
    for router, fits in (
        (SharedRouter(), True),
        (AverageRouter(), True),
        (LearnedRouter(), False),
        (PrivateRouter(), False),
        (ArrowRouter(), True),
        (PHATGOOSERouter(), True),
        (SMEARRouter(), True),
        (TokenRouter(), True),
    ):
        assert serves_any_task(Adapters(LoRA(), router, n_tasks=2)) is fits
    assert not serves_any_task(Adapters(LoRA(), SharedRouter(), n_tasks=2, private_skill=LoRA()))


def test_the_most_similar_text_shares_the_rarest_words():
    known = {"drop": "drop the last word", "sort": "sort the words", "upper": "write the word in capitals"}
    assert nearest(known, "please sort the list").task == "sort"
    assert nearest(known, "write capitals only").task == "upper"
    assert nearest(known, known["drop"]).cosine == pytest.approx(1)


def test_texts_without_a_common_word_have_no_nearest_task():
    advice = (
        r"with 'xyz'.*; describe the known tasks and the unknown one with --desc.*, or use --unknown=average"
    )
    with pytest.raises(UserError, match=rf"no known task has a word in common {advice}"):
        nearest({"a": "one", "b": "two"}, "xyz")
    with pytest.raises(UserError, match="no known task has a word in common"):
        nearest({"a": "?", "b": "!"}, "...")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[1]", "cannot be read as descriptions of tasks"),
        ('{"a": 3}', "the description of 'a' is 3, which is not a text"),
        ('{"a": " "}', "the description of 'a' is ' ', which is not a text"),
    ],
)
def test_a_file_that_does_not_describe_tasks_is_refused(tmp_path, text, told):
    (tmp_path / "tasks.json").write_text(text)
    with pytest.raises(UserError, match=told):
        read_descriptions(str(tmp_path / "tasks.json"))


def test_known_tasks_without_examples_or_descriptions_are_refused(tasks):
    known, wanted = TaskTable(("imported_skill",)), TaskTable(("new",))
    with pytest.raises(UserError, match=r"1 of the 1 known tasks have no examples, such as 'imported_skill'"):
        UnknownTasks("nearest").shares(known, wanted, str, {"inputs": 12, "targets": 6})


def test_regression_shares_are_those_of_centred_ridge_regression():
    known = {"a": "drop upper", "b": "drop mirror", "c": "mirror upper length"}
    found = regression_shares(known, "dropped uppers")
    vectorizer = TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 4), sublinear_tf=True)
    x = vectorizer.fit_transform(known.values()).toarray()
    asked = vectorizer.transform(["dropped uppers"]).toarray()[0] - x.mean(0)
    x = x - x.mean(0)
    # The primal form: a row of the known tasks' identity is predicted.
    weights = np.linalg.inv(x.T @ x + 0.3 * np.eye(x.shape[1])) @ x.T
    np.testing.assert_allclose(found, 1 / 3 + asked @ weights, rtol=1e-6, atol=1e-9)
    assert found.sum() == pytest.approx(1)
    assert found.argmax() == 0


def test_regression_puts_together_what_known_tasks_have_in_parts():
    # The weights of skills are a sum over words, so those of an unseen pair follow from the seen pairs.
    words = ["alpha", "beta", "gamma", "delta"]
    pairs = [(0, 1), (1, 2), (2, 3), (0, 3), (1, 3)]
    known = {f"{i}{j}": f"{words[i]} {words[j]}" for i, j in pairs}
    rows = np.array([np.eye(4)[i] + np.eye(4)[j] for i, j in pairs])
    row = regression_shares(known, "gamma alpha") @ rows
    assert set(row.argsort()[2:]) == {0, 2}
    assert nearest(known, "gamma alpha").task != "02"


def test_the_regression_answers_for_an_unknown_task(run, asked, capsys):
    known = {"evaluation_b": "counts words", "evaluation_no_metric": "x", "evaluation_no_test": "y"}
    described = {**known, "evaluation_a": "translates into French", "new": "a French translation"}
    pathlib.Path("tasks.json").write_text(json.dumps(described))
    options = {"unknown": "regression", "descriptions": "tasks.json"}
    assert len(answers(run, "new", **options)) == 2
    told = capsys.readouterr().err
    assert re.search(
        r"answered by regression over 4 rows \(the largest share is 0\.\d\d, of evaluation_a\)", told
    )
    with pytest.raises(UserError, match="no known task has letters in common with '12'"):
        regression_shares(described, "12")
