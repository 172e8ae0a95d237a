"""Predictions for texts equal those of an evaluation, keep the input fields, and never leave half a file."""

import dataclasses
import io
import json
import pathlib

import pytest
from etils import epath

from poly_jax import cli
from poly_jax.errors import UserError
from poly_jax.evaluation import texts
from poly_jax.evaluation.infer import infer, restore


def read_jsonl(path):
    return [json.loads(line) for line in pathlib.Path(path).read_text().splitlines()]


@pytest.fixture
def asked(run, tasks):
    """Test inputs of task a in two files: JSON lines with an additional field, and lines of text."""
    inputs = [text for text, _ in tasks.texts("evaluation_a", tasks.sizes["evaluation_a"])]
    records = [{"inputs": text, "number": n, "who": "Zoë"} for n, text in enumerate(inputs)]
    pathlib.Path("asked.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    pathlib.Path("asked.txt").write_text("".join(f"{text}\n" for text in inputs))
    return records


def test_a_suffix_in_upper_case_is_that_of_json_lines_too(tmp_path):
    path = str(tmp_path / "asked.JSONL")
    pathlib.Path(path).write_text('{"input": "x"}\n')
    assert texts.read_records(path) == [{"input": "x"}]
    texts.write_answers(path, [{"input": "x"}], ["y"], [-1.0])
    assert read_jsonl(path) == [{"input": "x", "prediction": "y", "score": -1.0}]


@pytest.fixture
def here(run, asked):
    """The run, with the input files in the current folder."""
    return run


def test_infer_predicts_the_same_as_an_evaluation_and_keeps_the_fields(here, asked, evaluated):
    wanted = [record["prediction"] for record in evaluated.predictions["evaluation_a"]]
    infer(here.folder, "evaluation_a", "asked.jsonl", "answers.jsonl", here.experiment, batch_size=3)
    answers = read_jsonl("answers.jsonl")
    assert [answer.pop("prediction") for answer in answers] == wanted
    assert all(answer.pop("score") < 0 for answer in answers)
    assert answers == asked
    infer(here.folder, "evaluation_a", "asked.txt", "answers.txt", here.experiment)
    lines = pathlib.Path("answers.txt").read_text().removesuffix("\n").split("\n")
    assert lines == [" ".join(text.splitlines()) for text in wanted]


def test_lines_of_text_become_json_lines_and_the_reverse(here):
    infer(here.folder, "evaluation_b", "asked.txt", "b.jsonl", here.experiment)
    infer(here.folder, "evaluation_b", "asked.jsonl", "b.txt", here.experiment)
    answers = read_jsonl("b.jsonl")
    assert list(answers[0]) == ["inputs", "prediction", "score"]
    lines = pathlib.Path("b.txt").read_text().removesuffix("\n").split("\n")
    assert lines == [" ".join(answer["prediction"].splitlines()) for answer in answers]


def test_the_tasks_adapters_are_used(here):
    for task in ("evaluation_a", "evaluation_b"):
        infer(here.folder, task, "asked.jsonl", f"{task}.jsonl", here.experiment)
    a, b = (read_jsonl(f"evaluation_{task}.jsonl") for task in "ab")
    assert [answer["score"] for answer in a] != pytest.approx([answer["score"] for answer in b], abs=0.01)


def test_texts_are_read_from_standard_input_and_written_to_standard_output(here, tasks, capsys, monkeypatch):
    assert cli.main(["infer", f"--run={here.folder}", "--task=evaluation_a", "--input=asked.txt"]) == 0
    expected = capsys.readouterr().out
    assert expected.count("\n") == tasks.sizes["evaluation_a"]
    monkeypatch.setattr("sys.stdin", io.StringIO(pathlib.Path("asked.txt").read_text()))
    assert cli.main(["infer", f"--run={here.folder}", "--task=evaluation_a"]) == 0
    assert capsys.readouterr().out == expected


def test_an_empty_line_between_texts_gets_an_output_line(here):
    pathlib.Path("gap.txt").write_text("a: b\n\na: b")
    infer(here.folder, "evaluation_a", "gap.txt", "answers.jsonl", here.experiment)
    answers = read_jsonl("answers.jsonl")
    assert [answer["inputs"] for answer in answers] == ["a: b", "", "a: b"]
    assert answers[0] == answers[2]


@pytest.mark.parametrize(
    ("task", "content", "message"),
    [
        (
            "evaluation_aa",
            "x",
            "task 'evaluation_aa' is not in the table of 4 tasks .did you mean 'evaluation_a'",
        ),
        (
            "evaluation_a",
            '{"inputs": "x"}\n{"inputs": \n',
            r"asked\.jsonl, line 2 is not valid JSON .* column 12",
        ),
        ("evaluation_a", '{"inputs": "x"}\n{"text": "y"}\n', r"asked\.jsonl, line 2: needs an object"),
        ("evaluation_a", '["x"]\n', r"asked\.jsonl, line 1: needs an object"),
        ("evaluation_a", '{"input": 3}\n', r"asked\.jsonl, line 1: the text to predict for is 3"),
        ("evaluation_a", '{"inputs": "\\ud83d"}\n', r"asked\.jsonl, line 1 has half of a surrogate pair"),
        ("evaluation_a", "[" * 100_000, r"asked\.jsonl, line 1 nests JSON deeper"),
        ("evaluation_a", "\n", r"asked\.jsonl is empty"),
        ("evaluation_a", None, r"asked\.jsonl is missing"),
    ],
)
def test_input_that_cannot_be_predicted_is_refused_by_name(here, task, content, message):
    file = pathlib.Path("asked.jsonl")
    file.unlink() if content is None else file.write_text(content)
    with pytest.raises(UserError, match=message):
        infer(here.folder, task, "asked.jsonl", "answers.txt", here.experiment)
    assert not pathlib.Path("answers.txt").exists()


def test_a_batch_size_of_0_is_refused_by_the_name_of_its_binding(here):
    with pytest.raises(UserError, match=r"^infer\.batch_size is 0; it must be at least 1$"):
        infer(here.folder, "evaluation_a", "asked.txt", "answers.txt", here.experiment, batch_size=0)


def test_an_output_that_cannot_be_written_is_an_error_before_the_work(here, monkeypatch):
    monkeypatch.setattr("poly_jax.evaluation.infer.restore", lambda *_: pytest.fail("it was too late"))
    with pytest.raises(
        UserError, match=r"nowhere/answers\.txt cannot be written: there is no folder .*nowhere"
    ):
        infer(here.folder, "evaluation_a", "asked.txt", "nowhere/answers.txt", here.experiment)
    pathlib.Path("folder").mkdir()
    with pytest.raises(UserError, match="folder is not a file"):
        infer(here.folder, "evaluation_a", "asked.txt", "folder", here.experiment)


def test_neither_the_input_file_nor_a_file_of_the_run_is_overwritten(here):
    texts = pathlib.Path("asked.txt").read_text()
    config = pathlib.Path(here.folder) / "config.gin"
    bound = config.read_text()
    with pytest.raises(UserError, match=r"asked\.txt is the file of the texts"):
        infer(here.folder, "evaluation_a", "asked.txt", "./asked.txt", here.experiment)
    with pytest.raises(UserError, match=r"config\.gin is among the files of the training run"):
        infer(here.folder, "evaluation_a", "asked.txt", str(config), here.experiment)
    assert (pathlib.Path("asked.txt").read_text(), config.read_text()) == (texts, bound)


def test_an_output_file_is_replaced_as_a_whole_or_not_at_all(here, tasks, monkeypatch):
    pathlib.Path("answers.txt").write_text("old\n")
    write = type(epath.Path("x")).write_text

    def full_disk(self, text, *args, **kwargs):
        write(self, text[: len(text) // 2], *args, **kwargs)
        raise OSError(28, "No space left on device")

    before = sorted(path.name for path in pathlib.Path().iterdir())
    with monkeypatch.context() as patch:
        patch.setattr(type(epath.Path("x")), "write_text", full_disk)
        with pytest.raises(UserError, match=r"answers\.txt cannot be written: No space left"):
            infer(here.folder, "evaluation_a", "asked.txt", "answers.txt", here.experiment)
    assert pathlib.Path("answers.txt").read_text() == "old\n"
    assert sorted(path.name for path in pathlib.Path().iterdir()) == before
    infer(here.folder, "evaluation_a", "asked.txt", "answers.txt", here.experiment)
    assert pathlib.Path("answers.txt").read_text().count("\n") == tasks.sizes["evaluation_a"]


def test_a_prediction_whose_score_is_nan_is_an_error_and_leaves_no_file(here, monkeypatch):
    """The run has diverged: its weights are NaN."""
    import jax
    import numpy as np

    def broken(*arguments):
        restored = restore(*arguments)
        nothing = jax.tree.map(lambda leaf: leaf * np.nan, restored.parameters)
        return dataclasses.replace(restored, parameters=nothing)

    monkeypatch.setattr("poly_jax.evaluation.infer.restore", broken)
    with pytest.raises(UserError, match="example 0, of task 'evaluation_a', is not a number"):
        infer(here.folder, "evaluation_a", "asked.jsonl", "answers.jsonl", here.experiment)
    assert not pathlib.Path("answers.jsonl").exists()
