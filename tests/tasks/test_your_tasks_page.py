"""The example of docs/your_tasks.md: two files, and one line of configuration, train and evaluate."""

import json
import pathlib

import pytest

from poly_jax import cli
from poly_jax.data.quiet import seqio
from poly_jax.data.task_table import TaskTable
from poly_jax.tasks.from_files import tasks

# Fewer sites and steps than the page's, which compile sooner.
SHORT = ("--gin.train.steps=2", "--gin.Adapters.sites=('.*/attention/query',)")


@pytest.fixture
def page(tmp_path, page_block, monkeypatch):
    """The page's files, in the current folder."""
    monkeypatch.setattr(seqio.TaskRegistry, "_REGISTRY", {})
    monkeypatch.setattr(seqio.MixtureRegistry, "_REGISTRY", {})
    monkeypatch.setattr(tasks, "_registered", {})
    monkeypatch.chdir(tmp_path)
    reviews = pathlib.Path("my_tasks", "reviews")
    reviews.mkdir(parents=True)
    pathlib.Path("my_tasks", "capitals.jsonl").write_text(page_block("your_tasks", "json"))
    for split in ("train", "test"):
        (reviews / f"{split}.csv").write_text(page_block("your_tasks", "csv"))
    pathlib.Path("mine.gin").write_text(page_block("your_tasks", "gin"))


@pytest.mark.slow
def test_the_files_and_the_configuration_of_the_page_train_and_evaluate(page):
    assert cli.main(["train", "--gin_file=mine.gin", "--output_dir=runs/mine", *SHORT]) == 0
    assert cli.main(["eval", "--run=runs/mine"]) == 0
    (results,) = pathlib.Path("runs/mine/eval").glob("*/metrics.json")
    metrics = json.loads(results.read_text())
    assert set(metrics["mine_capitals"]) == {"exact_match", "squad_f1"}
    assert set(metrics["mine_reviews"]) == {"rank_accuracy"}


def test_the_configuration_of_the_page_shows_its_prompts(page, capsys):
    assert cli.main(["data", "--gin_file=mine.gin"]) == 0
    shown = capsys.readouterr().out
    assert "  Review: Funny, and never too long.\n  Do they like the film?\n" in shown
    assert "  What is the capital of France?\n" in shown


def test_the_python_of_the_page_registers_the_same_tasks_in_under_fifteen_lines(page, page_block):
    code = page_block("your_tasks", "python")
    assert len(code.splitlines()) < 15
    exec(code, {})
    assert TaskTable.of("mine").names == ("mine_capitals", "mine_reviews")
    capitals = seqio.TaskRegistry.get("mine_capitals").source
    assert {split: capitals.num_input_examples(split) for split in capitals.splits} == {"train": 3, "test": 1}


def test_the_broken_rows_of_the_page_are_told_as_it_says(page, page_block, capsys):
    lines = page_block("your_tasks", "json").splitlines()
    lines[1:3] = ['{"question": "What is the capital of Peru?"}', lines[2].partition("[")[0] + '""}']
    pathlib.Path("my_tasks", "capitals.jsonl").write_text("\n".join(lines) + "\n")
    assert cli.main(["data", "--gin_file=mine.gin"]) == 1
    text = (pathlib.Path(__file__).resolve().parents[2] / "docs" / "your_tasks.md").read_text()
    printed = " ".join(text[text.index("    poly-jax: error: ") :].partition("\n\n")[0].split())
    assert capsys.readouterr().err == f"{printed}\n"
