"""The recipes of Super-NaturalInstructions and T0 have the published settings (arXiv 2211.03831)."""

import pathlib

import pytest

from poly_jax.configuration import Configuration
from poly_jax.data.quiet import seqio
from poly_jax.evaluation.online import OnlineEvaluation

RECIPES = pathlib.Path(__file__).resolve().parents[2] / "gin" / "recipes"
SNI = ("SNI='x'", "VOCABULARY='v'", "Experiment.backbone='b'")
T0 = ("P3='x'", "VOCABULARY='v'", "Experiment.backbone='b'")


def loaded(bindings, *files):
    return Configuration(tuple(f"recipes/{file}.gin" for file in files), bindings).load()


def test_super_natural_instructions_is_trained_as_published():
    arguments = loaded(SNI, "sni/pretrain").arguments("train", output_dir="x")
    experiment, optimizer, loss = (arguments[name] for name in ("experiment", "optimizer", "loss"))
    data = experiment.data
    # Published: 25,000 steps of 8 examples, one in a row. Here a step is two packed rows of six each.
    assert (arguments["steps"], arguments["eval_every"]) == (16_500, 3_300)
    assert (data.packing, data.batch_size, data.inputs_length, data.targets_length) == (
        "best-fit",
        2,
        1024,
        128,
    )
    assert (optimizer.algorithm, optimizer.learning_rate, optimizer.router_learning_rate) == (
        "adamw",
        1e-3,
        0.1,
    )
    # 1,500 of the published 25,000 steps.
    assert optimizer.warmup_fraction == 1500 / 25_000
    assert (optimizer.weight_decay, optimizer.clip_norm, optimizer.decay) == (0.01, 0.1, "linear")
    assert (loss.label_smoothing, loss.normalize_by) == (0.1, "examples")
    adapters = experiment.adapters.for_tasks(["a", "b"])
    assert (adapters.n_skills, adapters.skill.rank, adapters.router.sampling) == (8, 16, True)
    assert (experiment.decoding.n_beams, experiment.decoding.max_length) == (4, 128)
    assert arguments["evaluation"] == OnlineEvaluation(mixture="sni_test_20", split="test", zero_shot=True)


def test_super_natural_instructions_is_adapted_and_evaluated_as_published():
    given = loaded(SNI, "sni/pretrain", "sni/few_shot", "sni/zero_shot")
    adapting = given.arguments("adapt", run="r", task="t", output_dir="x")
    trained = given.arguments("train", output_dir="x")
    assert (adapting["steps"], adapting["batch_size"], adapting["split_name"]) == (1000, 8, "train_13")
    assert adapting["optimizer"] == trained["optimizer"]
    assert adapting["loss"] == trained["loss"]
    evaluating = given.arguments("evaluate", run="r")
    assert (evaluating["mixture"], evaluating["split"], evaluating["zero_shot"]) == ("sni_test", "test", True)


def test_the_table_of_super_natural_instructions_has_the_published_seeds_and_metric():
    sweep = loaded(SNI, "sni/pretrain", "sni/few_shot_sweep").bound("sweep")
    assert (sweep["seeds"], sweep["metric"]) == ((13, 42, 58), "rougeL")
    # The files of a seed are a split of their own, and the official test instances are scored.
    assert (sweep["train_split"], sweep["split"]) == ("train_{seed}", "test")


def test_t0_is_evaluated_zero_shot_with_all_templates():
    bindings = (*T0, "T0='y'", "t0_few_shot.register.vocabulary=@vocabularies.byte()")
    given = loaded(bindings, "t0/pretrain", "t0/zero_shot")
    evaluating = given.arguments("evaluate", run="r")
    assert (evaluating["mixture"], evaluating["split"], evaluating["zero_shot"]) == (
        "t0_few_shot",
        "validation",
        True,
    )
    assert given.bound("t0_few_shot.register")["evaluation_templates"] == "all"


def test_p3_s_own_rows_are_evaluated_without_length_normalisation():
    bindings = (*T0, "t0_score_eval.register.vocabulary=@vocabularies.byte()")
    given = loaded(bindings, "t0/pretrain", "t0/score_eval")
    assert given.arguments("evaluate", run="r")["mixture"] == "t0_p3_held_out"
    assert "length_norm" not in given.bound("t0_score_eval.register")


def test_t0_s_run_can_be_evaluated_on_its_way_on_tasks_of_another_folder(monkeypatch, tmp_path):
    monkeypatch.setattr(seqio.TaskRegistry, "_REGISTRY", dict(seqio.TaskRegistry._REGISTRY))
    monkeypatch.setattr(seqio.MixtureRegistry, "_REGISTRY", dict(seqio.MixtureRegistry._REGISTRY))
    shots = tmp_path / "few_shot" / "rte" / "32_shot" / "42_seed.jsonl"
    shots.parent.mkdir(parents=True)
    shots.write_text("{}\n")
    bindings = [*T0, f"T0='{tmp_path}'", "t0_few_shot.register.vocabulary=@vocabularies.byte()"]
    arguments = loaded(tuple(bindings), "t0/pretrain", "t0/online").arguments("train", output_dir="x")
    assert arguments["eval_every"] == 25_000
    evaluation = arguments["evaluation"]
    assert (evaluation.mixture, evaluation.split, evaluation.zero_shot) == ("t0_few_shot", "validation", True)
    evaluation.register()
    assert [task.name for task in seqio.MixtureRegistry.get("t0_few_shot").tasks] == ["t0_rte"]


@pytest.mark.parametrize("benchmark", ["t0", "sni", "crossfit"])
@pytest.mark.parametrize("recipe", ["pretrain", "few_shot", "zero_shot"])
def test_each_benchmark_has_each_recipe_with_a_twin_and_a_header(benchmark, recipe):
    for name in (recipe, f"{recipe}_tiny"):
        header = (RECIPES / benchmark / f"{name}.gin").read_text().split("\n\n")[0].lower()
        assert "must be bound:" in header
        assert "expect" in header
