"""The benchmark of docs/new_benchmark.md: two files and a folder are enough to train and to evaluate."""

import importlib
import json
import pathlib
import sys

import pytest

from poly_jax import cli
from poly_jax.data.quiet import seqio

WORDS = {"copy": lambda word: word, "reverse": lambda word: word[::-1], "upper": str.upper}


@pytest.fixture(scope="module")
def page(tmp_path_factory, page_block):
    """The page's two files, and a folder of three tasks, in the current folder."""
    folder = tmp_path_factory.mktemp("benchmark")
    (folder / "my_benchmark.py").write_text(page_block("new_benchmark", "python"))
    (folder / "mine.gin").write_text(page_block("new_benchmark", "gin"))
    for name, rule in WORDS.items():
        place = folder / "my_folder" / name
        place.mkdir(parents=True)
        for split, words in (("train", ["abc", "de", "fgh", "ij"]), ("test", ["klm", "no"])):
            lines = [json.dumps({"input": f"{name} {word}", "target": rule(word)}) for word in words]
            (place / f"{split}.jsonl").write_text("\n".join(lines) + "\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.syspath_prepend(str(folder))
        yield
    for name in WORDS:
        seqio.TaskRegistry.remove(f"mine_{name}")
    seqio.MixtureRegistry.remove("mine")
    sys.modules.pop("my_benchmark", None)


@pytest.mark.slow
def test_the_benchmark_on_the_page_trains_and_evaluates_from_two_files_and_a_folder(page):
    short = [
        "--gin.train.steps=2",
        "--gin.Adapters.sites=('.*/attention/query',)",
        "--gin.FOLDER='my_folder'",
    ]
    assert cli.main(["train", "--gin_file=mine.gin", "--output_dir=out", *short]) == 0
    assert cli.main(["eval", "--run=out"]) == 0
    (results,) = pathlib.Path("out/eval").glob("*/metrics.json")
    metrics = json.loads(results.read_text())
    assert {f"mine_{name}" for name in WORDS} <= set(metrics)
    assert all(0 <= metrics[f"mine_{name}"]["exact_match"] <= 100 for name in WORDS)


def test_the_tasks_of_the_benchmark_contain_the_texts_of_the_files(page):
    my_benchmark = importlib.import_module("my_benchmark")
    my_benchmark.register("my_folder", seqio.ByteVocabulary(extra_ids=0))
    task = seqio.get_mixture_or_task("mine_reverse")
    examples = list(
        task.get_dataset({"inputs": 32, "targets": 16}, "test", shuffle=False).as_numpy_iterator()
    )
    assert [example["targets_pretokenized"].decode() for example in examples] == ["mlk", "on"]
    assert my_benchmark.exact_match(["a", "b"], ["a", "c"]) == {"exact_match": 50.0}
