"""Every variant writes a run that can be used like any other."""

import json

import numpy as np
import pytest
from flax import traverse_util

from poly_jax import cli
from poly_jax.configuration import Configuration
from poly_jax.errors import UserError
from poly_jax.tasks.skillbench.compositions import benchmark
from poly_jax.tasks.skillbench.tasks import registered_name
from poly_jax.training.mesh import Partitioning
from poly_jax.training.restore import restore
from poly_jax.training.saved_step import read_origin
from poly_jax.training.saved_steps import step_folder
from poly_jax.training.train import train
from poly_jax.weights.parameter_names import is_adapter_parameter
from poly_jax.weights.tree import split

pytestmark = pytest.mark.usefixtures("own_folder")

SMALL = ("Adapters.sites = ('.*/attention/query', '.*/mlp/wo')", "train.steps = 2", "Data.batch_size = 8")
TASK = registered_name(benchmark().heldout[0].name)
OLD = [registered_name(task.name) for task in benchmark().train[:2]]


def adapted(short_runs, source, variant, folder, *flags):
    words = [
        "adapt",
        f"--run={short_runs[source]}",
        f"--task={TASK}",
        f"--variant={variant}",
        f"--output_dir={folder}",
    ]
    assert cli.main([*words, "--gin.adapt.steps=2", *flags]) == 0


def restored(folder):
    experiment = Configuration().load(run=str(folder)).experiment()
    return restore(experiment, str(folder), Partitioning().mesh())


def flat(tree):
    return traverse_util.flatten_dict(tree, sep="/")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("source", "variant"),
    [
        ("mhr", "full"),
        ("mhr", "random"),
        ("mhr", "private"),
        ("private", "soup-selected"),
        ("private", "poly-z"),
        ("private", "dare-ties"),
        ("mhr", "ties-trained"),
        ("mhr", "lorahub"),
        ("mhr", "zero-shot"),
    ],
)
def test_an_adapted_run_can_be_evaluated_and_predicts(short_runs, tmp_path, source, variant):
    folder = tmp_path / "adapted"
    adapted(short_runs, source, variant, folder)
    model = restored(folder)
    assert model.table.names == (TASK,)
    sizes = {leaf.shape[1] for path, leaf in flat(model.parameters).items() if "skills" in path}
    assert sizes == {"full": set(), "random": {8}, "poly-z": {32}}.get(variant, {1})
    origin = read_origin(step_folder(folder))
    assert (origin.backbone is None) == (variant == "full")
    (tmp_path / "in.txt").write_text("abc defg\n")
    answers = tmp_path / "out.txt"
    ask = [
        "infer",
        f"--run={folder}",
        f"--task={TASK}",
        f"--input={tmp_path / 'in.txt'}",
        f"--output={answers}",
    ]
    assert cli.main(ask) == 0
    assert len(answers.read_text().splitlines()) == 1
    if variant == "lorahub":
        assert cli.main(["eval", f"--run={folder}"]) == 0
        (metrics,) = (folder / "eval").glob("*/metrics.json")
        assert set(json.loads(metrics.read_text())) == {TASK, "mean"}


@pytest.mark.slow
def test_full_fine_tuning_starts_from_the_backbone_without_adapters(short_runs, tmp_path):
    adapted(short_runs, "mhr", "full", tmp_path / "full", "--gin.adapt/Optimizer.learning_rate=0.0")
    before, _ = split(restored(short_runs["mhr"]).parameters, lambda path: not is_adapter_parameter(path))
    after = flat(restored(tmp_path / "full").parameters)
    assert set(after) == set(flat(before))
    for path, leaf in flat(before).items():
        np.testing.assert_array_equal(after[path], leaf)


@pytest.mark.slow
def test_a_new_row_starts_from_the_rows_of_named_tasks(short_runs, tmp_path):
    still = ["--gin.adapt/Optimizer.router_learning_rate=0.0"]
    flags = [f"--init_router_from={name}" for name in OLD]
    adapted(short_runs, "mhr", "mhr-z", tmp_path / "z", *flags, *still)
    source = restored(short_runs["mhr"])
    ids = [source.table.id(name) for name in OLD]
    new, old = flat(restored(tmp_path / "z").parameters), flat(source.parameters)
    path = "encoder/layers_0/attention/query/router/logits"
    np.testing.assert_allclose(new[path][0], np.asarray(old[path])[ids].mean(axis=0), rtol=1e-6)


@pytest.mark.slow
def test_a_mixture_shares_one_averaged_adapter_and_resumes_where_it_stopped(short_runs, tmp_path, capsys):
    words = ["adapt", f"--run={short_runs['mhr']}", "--task=skillbench_train", "--variant=mhr-mu"]
    words += [f"--output_dir={tmp_path / 'mu'}", "--gin.adapt.steps=2"]
    assert cli.main(words) == 0
    model = restored(tmp_path / "mu")
    assert len(model.table) == 32
    assert model.model.adapters.inventory_size == 1
    assert cli.main(words) == 0
    assert "resumes from step 2" in capsys.readouterr().out
    # The averaged adapter can be evaluated on tasks that no run has seen.
    zero = ["eval", f"--run={tmp_path / 'mu'}", f"--mixture={TASK}", "--zero_shot"]
    assert cli.main(zero) == 0


def test_a_variant_that_chooses_skills_needs_the_examples_of_one_task(short_runs, tmp_path):
    words = [
        "adapt",
        f"--run={short_runs['private']}",
        "--task=skillbench_heldout",
        "--variant=soup-selected",
    ]
    assert cli.main([*words, f"--output_dir={tmp_path / 'x'}"]) == 1
    assert not (tmp_path / "x").exists()


def test_annealing_is_refused_where_logits_of_zero_do_not_mix_equally(tmp_path):
    loaded = Configuration(
        ("recipes/skillbench/mhr.gin",),
        (*SMALL, "train.router_anneal_steps = 1", "LearnedRouter.scores = 'l2'"),
    ).load()
    with pytest.raises(UserError, match="router_anneal_steps"):
        train(**loaded.arguments("train", output_dir=str(tmp_path / "run")))


@pytest.mark.slow
def test_the_page_of_a_row_over_the_skills_of_tasks_names_these_skills(short_runs, tmp_path):
    adapted(short_runs, "private", "poly-z", tmp_path / "adapted", "--gin.LearnedRouter.sampling=False")
    assert cli.main(["routing", f"--run={tmp_path / 'adapted'}", f"--output_dir={tmp_path / 'page'}"]) == 0
    found = json.loads((tmp_path / "page" / "routing.json").read_text())
    names = restored(short_runs["private"]).table.names
    assert found["skill_names"] == list(names)
    # The row is the only parameter that was trained here, and its initial value is known.
    assert set(found["drift"]["overall"]) == {"router logits"}
    page = (tmp_path / "page" / "routing.html").read_text()
    assert all(name in page for name in names)
    router = restored(tmp_path / "adapted").model.adapters.router
    assert not router.sampling
