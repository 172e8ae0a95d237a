"""The tasks of the benchmarks give the same examples from a cache as from their own files."""

import json

import numpy as np
import pytest

from poly_jax.data import vocabularies
from poly_jax.data.quiet import seqio
from poly_jax.prepare.making import Place, make_task
from poly_jax.tasks.crossfit import tasks as crossfit
from poly_jax.tasks.from_files import tasks as from_files
from poly_jax.tasks.super_natural_instructions import tasks as sni
from poly_jax.tasks.t0_few_shot import tasks as t0

LENGTHS = {"inputs": 300, "targets": 40}
PREFIX = "prepared"


@pytest.fixture(autouse=True)
def registries():
    """Undo the registrations of a test."""
    stores = [seqio.TaskRegistry._REGISTRY, seqio.MixtureRegistry._REGISTRY]
    stores += [crossfit._registered, from_files._registered, sni._registered, t0._registered]
    before = [dict(store) for store in stores]
    yield
    for store, content in zip(stores, before, strict=True):
        store.clear()
        store.update(content)
    seqio.set_global_cache_dirs([])


def check_cached_like_uncached(name, cache):
    """Compare the first examples of the first and the last split of a task, with one seed."""
    make_task(name, Place(str(cache), LENGTHS))
    seqio.set_global_cache_dirs([str(cache)])
    task = seqio.TaskRegistry.get(name)
    for split in {task.splits[0], task.splits[-1]}:
        assert task.get_cached_stats(split)["examples"] == task.num_input_examples(split)
        cached, uncached = (
            task.get_dataset(LENGTHS, split, use_cached=use, shuffle=False, seed=3).take(20)
            for use in (True, False)
        )
        rows = list(zip(cached.as_numpy_iterator(), uncached.as_numpy_iterator(), strict=True))
        assert rows
        for mine, theirs in rows:
            assert mine.keys() == theirs.keys()
            for feature, value in theirs.items():
                np.testing.assert_array_equal(mine[feature], value, err_msg=f"{name} {split} {feature}")


def test_super_natural_instructions_with_demonstrations(tmp_path):
    folder = tmp_path / "sni"
    (folder / "tasks").mkdir(parents=True)
    (folder / "splits" / "default").mkdir(parents=True)
    content = {
        "Definition": ["Answer"],
        "Categories": ["Question Answering"],
        "Positive Examples": [{"input": "one?", "output": "1", "explanation": ""}] * 3,
        "Instances": [
            {"id": f"id-{n}", "input": f"question {n}", "output": [f"answer {n}", f"reply {n}"][: 1 + n % 2]}
            for n in range(150)
        ],
    }
    for stem in ("train_one", "test_one"):
        (folder / "tasks" / f"{stem}.json").write_text(json.dumps(content))
    for split in ("train", "test", "excluded"):
        (folder / "splits" / "default" / f"{split}_tasks.txt").write_text(f"{split}_one\n")
    sni.register(folder, vocabularies.byte(), positive_examples=2, prefix=PREFIX)
    for name in ("train_one", "test_one"):
        check_cached_like_uncached(f"{PREFIX}_{name}", tmp_path / "cache")


def test_tasks_from_files_with_choices_and_a_broken_row(tmp_path):
    folder = tmp_path / "mine"
    folder.mkdir()
    lines = [
        json.dumps({"input": f"question {n}", "choices": ["yes", "no", "maybe"][: 2 + n % 2], "target": "no"})
        for n in range(9)
    ]
    (folder / "quiz.jsonl").write_text("\n".join([*lines[:4], "broken", *lines[4:]]) + "\n")
    from_files.register(
        folder,
        vocabularies.byte(),
        choices="choices",
        fractions={"test": 0.2},
        max_broken_share=0.2,
        prefix=PREFIX,
    )
    cache = tmp_path / "cache"
    check_cached_like_uncached(f"{PREFIX}_quiz", cache)
    report = json.loads((cache / f"{PREFIX}_quiz" / "report.json").read_text())
    (dropped,) = report["splits"]["train"]["dropped"]
    assert (dropped["file"], dropped["line"]) == (str(folder / "quiz.jsonl"), 5)
    manifest = json.loads((cache / f"{PREFIX}_quiz" / "manifest.json").read_text())
    assert [file["name"] for file in manifest["splits"]["train"]["files"]] == ["quiz.jsonl"]


def test_the_rate_of_a_task_with_a_cache_takes_no_second_reading_of_its_files(tmp_path):
    folder, cache = tmp_path / "mine", tmp_path / "cache"
    folder.mkdir()
    row = json.dumps({"input": "question", "target": "answer"})
    (folder / "quiz.jsonl").write_text(f"{row}\n" * 7)
    from_files.register(folder, vocabularies.byte(), prefix=PREFIX)
    make_task(f"{PREFIX}_quiz", Place(str(cache), LENGTHS))
    from_files.register(folder, vocabularies.byte(), prefix="again")
    (cache / f"{PREFIX}_quiz").rename(cache / "again_quiz")
    (folder / "quiz.jsonl").write_text("no row")
    seqio.set_global_cache_dirs([str(cache)])
    assert seqio.MixtureRegistry.get("again").get_rate(seqio.TaskRegistry.get("again_quiz")) == 7


def test_crossfit(tmp_path):
    folder = tmp_path / "crossfit"
    (folder / "splits").mkdir(parents=True)
    (folder / "data" / "boolq").mkdir(parents=True)
    parts = {"train": ["boolq"], "dev": [], "test": []}
    (folder / "splits" / "mine.json").write_text(json.dumps(parts))
    for split in ("train", "dev", "test"):
        lines = [f"{split} question {n}\tyes" + "\tno" * (n % 2) for n in range(5)]
        (folder / "data" / "boolq" / f"boolq_16_100_{split}.tsv").write_text("\n".join(lines) + "\n")
    crossfit.register(folder, vocabularies.byte(), partition="mine", prefix=PREFIX)
    check_cached_like_uncached(f"{PREFIX}_boolq", tmp_path / "cache")


def test_real_super_natural_instructions(shared_data, tmp_path):
    sni.register(shared_data / "sni", vocabularies.byte(), positive_examples=1, prefix=PREFIX)
    check_cached_like_uncached(f"{PREFIX}_task1393_superglue_copa_text_completion", tmp_path)


def test_real_crossfit(shared_data, tmp_path):
    crossfit.register(shared_data / "crossfit", vocabularies.byte(), prefix=PREFIX)
    name = next(name for name in sorted(seqio.TaskRegistry.names()) if name.startswith(f"{PREFIX}_"))
    check_cached_like_uncached(name, tmp_path)


def test_real_held_out_task_of_t0_with_its_choices(shared_data, tmp_path):
    t0.register(shared_data / "t0", vocabularies.byte(), prefix=PREFIX)
    check_cached_like_uncached(f"{PREFIX}_copa", tmp_path)
