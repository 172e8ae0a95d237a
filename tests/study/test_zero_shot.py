"""The study of tasks without examples: what it computes, that it continues, and its tables."""

import dataclasses
import itertools
import json

import numpy as np
import pytest
from etils import epath

from poly_jax import configuration
from poly_jax.reporting.results_file import ResultsFile
from poly_jax.study import zero_shot
from poly_jax.study.methods import RECIPES, SHARED
from poly_jax.study.zero_shot_entries import AS_IT_IS, ENTRIES, FORMS, REFERENCE, UNIFORM, Entry
from poly_jax.study.zero_shot_summary import summarise
from poly_jax.transfer.variants import VARIANTS

# Few sites, because compiling takes most of the time.
SHORT = ("train.steps = 1", "Adapters.sites = ('encoder/attention/query',)", "Adapters.n_skills = 2")


def test_each_method_has_runs_and_results_of_its_own():
    assert len({entry.method.name for entry in ENTRIES}) == len(ENTRIES)
    assert len({entry.method.run_name for entry in ENTRIES}) == len(ENTRIES)
    assert any(entry.method.name == REFERENCE[0] and REFERENCE[1] in entry.answers for entry in ENTRIES)


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.method.run_name)
def test_a_way_to_answer_fits_the_adapters_of_its_method(entry):
    described = f"{RECIPES}/described.gin"
    loaded = configuration.load([entry.method.recipe, described], ["train.seed = 0"])
    experiment = loaded.arguments("train", output_dir="unused")["experiment"]
    assert experiment.data.mixture == "skillbench_described_train"
    assert experiment.data.inputs_length == 29
    assert experiment.backbone.endswith("backbone_in_words.safetensors")
    adapters = dataclasses.replace(experiment.adapters, n_tasks=32)
    for answer in entry.answers:
        if answer == AS_IT_IS:
            assert adapters.router.serves_any_task
        elif answer in VARIANTS:
            VARIANTS[answer].check(adapters)


@pytest.fixture
def tiny(tmp_path, monkeypatch):
    """A study of two methods of one step each, with a count of the runs that it trains."""
    poly, shared = ENTRIES[0], Entry(dataclasses.replace(SHARED, rates=(0.01,)), (AS_IT_IS,))
    monkeypatch.setattr(
        zero_shot, "ENTRIES", (dataclasses.replace(poly, answers=(UNIFORM, "regression")), shared)
    )
    trained = []
    train = zero_shot.train_method

    def counted(method, folder, **options):
        trained.append(folder.name)
        return train(method, folder, **options)

    monkeypatch.setattr(zero_shot, "train_method", counted)
    return epath.Path(tmp_path), trained


def test_a_rerun_computes_only_what_is_missing(tiny, capfd):
    folder, trained = tiny
    zero_shot.compute(str(folder), (7,), SHORT)
    assert trained == ["poly-rate0.03-seed7", "shared-rate0.01-seed7"]
    lines = (folder / "results.jsonl").read_text().splitlines()
    # A score on seen tasks for each method, and one for each form and way to answer.
    assert len(lines) == 2 + 2 * len(FORMS) + len(FORMS)
    (folder / "results.jsonl").write_text("\n".join(lines[:-1]) + "\n")
    trained.clear()
    capfd.readouterr()
    zero_shot.compute(str(folder), (7,), SHORT)
    assert trained == ["shared-rate0.01-seed7"]
    assert "resumes from step 1" in capfd.readouterr().out
    assert (folder / "results.jsonl").read_text().splitlines() == lines
    described = json.loads((folder / "descriptions-reworded-seed7.json").read_text())
    assert len(described) == 32 + 8
    assert described["skillbench_described_ksq_seed7"] == "drop omit upper raise"
    assert described["skillbench_reworded_txz_seed7"] == "drops omits swaps pairs"


@pytest.fixture
def results(tmp_path):
    """Scores of the shared LoRA, which are 20 to 24 points above Poly's uniform mix."""
    found = ResultsFile(epath.Path(tmp_path) / "results.jsonl")
    for seed in range(5):
        for entry in ENTRIES[:2]:
            method = entry.method.name
            key = {"method": method, "seed": seed}
            found.add(
                {"stage": "seen", "form": "described", **key}, {"seen": 90.0, "trained": 10, "rate": 0.01}
            )
            for form, answer in itertools.product(FORMS, entry.answers):
                if (form, answer) == ("reworded", "nearest"):
                    continue
                score = 21.0 + seed if answer == AS_IT_IS else 1.0
                value = {"heldout": score, "per_task": {}}
                found.add({"stage": "zero-shot", "form": form, "answer": answer, **key}, value)
    return found


def test_the_summary_compares_every_answer_with_the_uniform_mix_seed_by_seed(results):
    text = summarise(results, (0, 1, 2, 3, 4))
    # Differences of 20 to 24: the standard error is sqrt(2.5 / 5), and t(0.975, 4) = 2.776.
    half = f"{2.776 * np.sqrt(2.5 / 5):.1f}"
    both = f"± {half} | 23.0 ± {half}"
    assert f"| shared LoRA, 8 x rank | 10 | 0.01 | 5 | 90.0 ± 0.0 | as it is | 23.0 {both} |" in text
    assert f"| shared LoRA, 8 x rank, as it is | 5 | 22.0 ± {half} | 22.0 ± {half} |" in text
    assert "|  |  |  |  |  | nearest | 1.0 ± 0.0 | - |" in text
    assert "SMEAR" not in text


def test_the_summary_counts_the_seeds_for_which_a_method_is_complete(results):
    key = {"form": "described", "method": "SMEAR", "seed": 0}
    results.add({"stage": "seen", **key}, {"seen": 70.0, "trained": 10, "rate": 0.03})
    assert "SMEAR" not in summarise(results, (0, 1))
    for form, answer in itertools.product(FORMS, (AS_IT_IS, UNIFORM)):
        results.add({"stage": "zero-shot", **key, "form": form, "answer": answer}, {"heldout": 26.0})
    assert "| SMEAR | 10 | 0.03 | 1 | 70.0 | as it is | 26.0 | 26.0 |" in summarise(results, (0, 1))
    assert "| SMEAR, as it is | 1 | 25.0 | 25.0 |" in summarise(results, (0, 1))
