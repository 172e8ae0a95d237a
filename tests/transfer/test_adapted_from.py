"""An adapted run stores how it started: its initial values can be recomputed, and only it is resumed."""

import json
import pathlib

import numpy as np
import pytest

from poly_jax import cli
from poly_jax.analysis.initial_values import initial_values
from poly_jax.configuration import Configuration
from poly_jax.tasks.skillbench.compositions import benchmark
from poly_jax.tasks.skillbench.tasks import registered_name
from poly_jax.training.open_run import open_run
from poly_jax.training.saved_steps import step_folder
from poly_jax.transfer import adapt as adapt_module
from poly_jax.transfer.adapted_from import AdaptedFrom

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("own_folder")]

TASK = registered_name(benchmark().heldout[0].name)
OLD = [registered_name(task.name) for task in benchmark().train[:2]]
STILL = ["--gin.adapt/Optimizer.learning_rate=0.0", "--gin.adapt/Optimizer.router_learning_rate=0.0"]


def adapt(run, variant, *flags, task=TASK, folder="adapted"):
    words = ["adapt", f"--run={run}", f"--task={task}", f"--variant={variant}", f"--output_dir={folder}"]
    return cli.main([*words, "--gin.adapt.steps=1", *flags])


@pytest.mark.parametrize(
    ("source", "variant", "flags", "trained"),
    [
        ("mhr", "mhr", [f"--init_router_from={name}" for name in OLD], {"lora_a", "lora_b", "logits"}),
        ("mhr", "mhr-z", ["--seed=3"], {"logits"}),
        ("mhr", "mhr-mu", [], {"lora_a", "lora_b"}),
        ("mhr", "random", ["--seed=3"], {"lora_a", "lora_b", "logits"}),
        ("private", "soup-selected", ["--gin.SelectedSkills.count=3"], {"lora_a", "lora_b"}),
    ],
)
def test_a_run_that_has_not_learned_equals_its_recomputed_initial_values(
    short_runs, source, variant, flags, trained
):
    assert adapt(short_runs[source], variant, *flags, *STILL) == 0
    loaded = Configuration().load(run="adapted")
    experiment, began = loaded.experiment(), loaded.make(AdaptedFrom)
    opened = open_run("adapted", experiment)
    initial = initial_values(step_folder("adapted"), experiment.transformer(opened.table), began)
    assert {path.split("/")[-1] for path in initial.arrays} == trained
    for path, leaf in initial.arrays.items():
        np.testing.assert_allclose(leaf, opened.skills[path], rtol=1e-6, atol=1e-9, err_msg=path)
    assert began.step == str(step_folder(short_runs[source]))
    assert len(set(began.skills)) == (3 if variant == "soup-selected" else 0)
    # Recomputing the initial values loads the source's configuration, and does not change this one.
    assert loaded.make(AdaptedFrom) == began


def test_the_routing_page_reports_how_far_the_skills_moved(short_runs):
    assert adapt(short_runs["mhr"], "mhr", "--gin.adapt/Optimizer.warmup_fraction=0.0") == 0
    assert cli.main(["routing", "--run=adapted", "--output_dir=out"]) == 0
    with open("out/routing.json") as file:
        drift = json.load(file)["drift"]
    assert set(drift["overall"]) == {"skill lora_a", "skill lora_b", "router logits"}
    # One step of Adam moves each parameter that has a gradient by the learning rate.
    assert 0 < drift["overall"]["skill lora_b"]["rms"] < 0.1
    assert drift["note"] == ""


def test_a_folder_of_other_content_is_refused_before_the_run_is_read(short_runs, capsys, monkeypatch):
    monkeypatch.setattr(adapt_module, "restore", lambda *_: pytest.fail("the run is read"))
    pathlib.Path("thesis").mkdir()
    pathlib.Path("thesis/thesis.tex").touch()
    for folder, named in (
        ("thesis", "thesis exists and holds no run of this program"),
        (short_runs["mhr"], "holds another run (it has"),
    ):
        assert adapt(short_runs["mhr"], "mhr", folder=folder) == 1
        assert named in capsys.readouterr().err


def test_an_adapted_run_is_not_resumed_with_other_settings(short_runs, capsys):
    flags = ["--seed=3", "--shots=8"]
    assert adapt(short_runs["mhr"], "mhr", *flags) == 0
    capsys.readouterr()
    other = registered_name(benchmark().heldout[1].name)
    for run, variant, changed, task, named in [
        ("private", "soup", flags, TASK, "AdaptedFrom.step"),
        ("mhr", "random", flags, TASK, "AdaptedFrom.variant = 'mhr'"),
        ("mhr", "mhr", ["--seed=4", "--shots=8"], TASK, "AdaptedFrom.seed = 3"),
        ("mhr", "mhr", ["--seed=3"], TASK, "AdaptedFrom.shots = 8"),
        ("mhr", "mhr", [*flags, f"--init_router_from={OLD[0]}"], TASK, "AdaptedFrom.init_router_from = ()"),
        ("mhr", "mhr", flags, other, f"Data.mixture = '{TASK}'"),
    ]:
        assert adapt(short_runs[run], variant, *changed, task=task) == 1
        shown = capsys.readouterr().err
        assert "adapted holds another run" in shown
        assert named in shown
        assert shown.count("\n") == 1
    assert adapt(short_runs["mhr"], "mhr", *flags) == 0
    assert "resumes from step 1" in capsys.readouterr().out
