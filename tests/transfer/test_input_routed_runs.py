"""Runs whose routers look at inputs are made from runs with trained skills, and used like any other run."""

import dataclasses
import pathlib

import jax
import numpy as np
import pytest
from flax import traverse_util

from poly_jax import cli
from poly_jax.adapters.config import Adapters
from poly_jax.adapters.ia3 import IA3
from poly_jax.adapters.lora import LoRA
from poly_jax.configuration import Configuration, Texts
from poly_jax.configuration.gin_text import bindings
from poly_jax.data.task_table import TaskTable
from poly_jax.errors import UserError
from poly_jax.model.config import T5Config
from poly_jax.model.parameters import parameter_shapes
from poly_jax.model.transformer import Transformer
from poly_jax.routing.arrow import ArrowRouter
from poly_jax.routing.fixed import PrivateRouter
from poly_jax.routing.phatgoose import PHATGOOSERouter
from poly_jax.routing.smear import SMEARRouter
from poly_jax.routing.token_router import TokenRouter
from poly_jax.tasks.skillbench.compositions import benchmark
from poly_jax.tasks.skillbench.tasks import registered_name
from poly_jax.training.guards import check_routers
from poly_jax.training.mesh import Partitioning
from poly_jax.training.restore import restore
from poly_jax.training.run_folder import write_run
from poly_jax.training.saved_step import Origin, read_origin
from poly_jax.training.saved_steps import step_folder
from poly_jax.transfer.adapted_from import AdaptedFrom
from poly_jax.transfer.new_adapters import initial_parameters, new_adapters
from poly_jax.transfer.variants import VARIANTS, usual
from poly_jax.weights.parameter_names import is_adapter_parameter
from poly_jax.weights.tree import split

TASK = registered_name(benchmark().heldout[0].name)


def flat(tree):
    return traverse_util.flatten_dict(tree, sep="/")


def adapter_shapes(model):
    return split(parameter_shapes(model)[0], is_adapter_parameter)[0]


def adapted_from(many, variant, **changes):
    """The adapters and the initial parameters that a variant makes from a run with other adapters."""
    rng = np.random.default_rng(0)
    old = dataclasses.replace(many.model.adapters, n_splits=1, **changes)
    new = new_adapters(VARIANTS[variant], old, 4 if variant == "phatgoose" else 1)
    shapes = adapter_shapes(dataclasses.replace(many.model, adapters=old))
    trained = jax.tree.map(lambda leaf: rng.normal(size=leaf.shape).astype(np.float32), shapes)
    shapes = adapter_shapes(dataclasses.replace(many.model, adapters=new))
    fresh = jax.tree.map(lambda leaf: np.zeros(leaf.shape, np.float32), shapes)
    start = initial_parameters(VARIANTS[variant], trained, fresh, old.skill)
    return new, flat(trained), flat(start), flat(fresh)


def test_arrow_keeps_the_skills_and_finds_their_prototypes(many):
    new, trained, start, fresh = adapted_from(many, "arrow", router=PrivateRouter())
    assert new.router == ArrowRouter()
    assert (new.n_skills, new.n_tasks, new.granularity) == (4, 1, "fine")
    assert {path: leaf.shape for path, leaf in start.items()} == {
        path: leaf.shape for path, leaf in fresh.items()
    }
    sites = {path.removesuffix("/lora_a") for path in start if path.endswith("lora_a")}
    assert sites
    for site in sites:
        a, b = (np.asarray(start[f"{site}/{name}"], np.float64) for name in ("lora_a", "lora_b"))
        np.testing.assert_array_equal(a, trained[f"{site}/lora_a"])
        found = start[site.replace("/skills", "/input_router/prototypes")]
        for skill in range(4):
            vector = np.linalg.svd(a[0, skill] @ b[0, skill])[0][:, 0]
            np.testing.assert_allclose(np.abs(found[skill] @ vector), 1, atol=1e-4)


def test_phatgoose_starts_with_half_open_gates_for_every_kind_of_skill(many):
    for skill in (LoRA(rank=2), IA3()):
        new, _, start, _ = adapted_from(many, "phatgoose", router=PrivateRouter(), skill=skill)
        assert new.router == PHATGOOSERouter()
        gates = [leaf for path, leaf in start.items() if path.endswith("/gates")]
        assert gates
        assert not any(np.any(leaf) for leaf in gates)


@pytest.mark.parametrize("variant", ["routed", "poly", "poly-z"])
def test_a_router_of_inputs_is_kept_for_a_new_task(many, variant):
    new, trained, start, _ = adapted_from(many, variant, router=TokenRouter())
    assert new.router == TokenRouter()
    assert any("input_router" in path for path in start)
    for path, leaf in trained.items():
        np.testing.assert_array_equal(start[path], leaf)


def test_the_average_of_routed_skills_has_no_router(many):
    new, _, start, _ = adapted_from(many, "poly-mu", router=ArrowRouter())
    assert new.inventory_size == 1
    assert not any("router" in path for path in start)


def test_runs_that_routing_by_input_does_not_fit_are_refused_with_what_to_use(many):
    ours = many.model.adapters
    one = dataclasses.replace(ours, n_splits=1)
    arrow = dataclasses.replace(one, router=ArrowRouter())
    private = dataclasses.replace(one, router=PrivateRouter())
    refused = [
        ("arrow", ours, r"routes whole skills, and this run mixes 2 splits of them; use 'mhr'"),
        ("arrow", dataclasses.replace(one, skill=IA3()), r"reads LoRA's factors.* are IA3; use 'phatgoose'"),
        ("phatgoose", one, r"in this run tasks share skills; use 'arrow', or a run with routers/private.gin"),
        ("phatgoose", private, r"trains on the run's own 4 tasks, not on 1 task;"),
        ("routed", one, r"LearnedRouter looks at tasks; use 'arrow' to make one"),
        ("poly", arrow, r"ArrowRouter was made for the run's skills; use 'routed' to keep it"),
        ("poly-z", arrow, r"ArrowRouter was made for the run's skills"),
        ("random", dataclasses.replace(one, router=PHATGOOSERouter()), r"PHATGOOSERouter was made"),
    ]
    for name, adapters, message in refused:
        with pytest.raises(UserError, match=message):
            new_adapters(VARIANTS[name], adapters)
    few = new_adapters(VARIANTS["arrow"], dataclasses.replace(one, n_skills=2))
    with pytest.raises(UserError, match=r"top_k is 3, but the inventory has 2 skills; bind it to 1 to 2"):
        few.check({"encoder/attention/query": (16, 16), "decoder/mlp/wo": (24, 16)})
    assert usual(arrow) == "routed"
    assert usual(dataclasses.replace(one, router=TokenRouter())) == "poly"


@pytest.mark.parametrize("router", [ArrowRouter(), PHATGOOSERouter()])
def test_a_router_that_is_made_for_trained_skills_is_not_trained_with_them(router):
    with pytest.raises(UserError, match=r"made for trained skills; train skills with routers/private.gin"):
        check_routers(Adapters(LoRA(), router, n_tasks=3), None, 0)


@pytest.mark.parametrize("router", [ArrowRouter(), PHATGOOSERouter(), SMEARRouter(), TokenRouter()])
def test_a_run_with_a_router_of_inputs_is_not_exported_as_one_adapter(router, own_folder, capsys):
    config = T5Config(
        emb_dim=4, num_heads=2, head_dim=2, mlp_dim=8, num_encoder_layers=1, num_decoder_layers=1
    )
    adapters = Adapters(LoRA(rank=1), router, n_tasks=2, n_skills=3)
    shapes = adapter_shapes(Transformer(config, adapters))
    trained = jax.tree.map(lambda leaf: np.zeros(leaf.shape, np.float32), shapes)
    lines = ["Experiment.model = @T5Config()", *bindings(config), "Experiment.data = @Data()"]
    lines += ["Experiment.adapters = @Adapters", *bindings(adapters, skip=("n_tasks",))]
    text = Texts("").with_bindings(lines).config
    write_run("routed", trained, TaskTable(("a", "b")), Origin("t5.safetensors", "0"), text)
    line = f"poly-jax: error: {type(router).__name__} mixes skills by their input, so that no task has one"
    for format in ("peft_lora", "peft_poly", "t5x", "hugging_face", "backbone"):
        for more in ([], ["--task=a"])[format == "backbone" :]:
            words = ["export", "--run=routed", f"--format={format}", "--output=out.safetensors", *more]
            assert cli.main(words) == 1
            told = capsys.readouterr().err
            assert told.startswith(line), format
            assert len(told.splitlines()) == 1
            assert not pathlib.Path("out.safetensors").exists()


@pytest.mark.slow
def test_arrow_and_phatgoose_runs_refer_to_the_skills_and_can_be_evaluated(short_runs, own_folder, capsys):
    def adapt(run, task, variant, folder, *flags):
        return cli.main(
            [
                "adapt",
                f"--run={run}",
                f"--task={task}",
                f"--variant={variant}",
                f"--output_dir={folder}",
                *flags,
            ]
        )

    private = short_runs["private"]
    assert adapt(private, TASK, "arrow", "arrow", "--gin.ArrowRouter.top_k=2") == 0
    assert adapt(private, "skillbench_train", "phatgoose", "gates", "--gin.adapt.steps=2") == 0
    assert adapt("gates", TASK, "routed", "routed") == 0
    skills, mesh = str(step_folder(private).absolute()), Partitioning().mesh()
    for folder, router in (("arrow", ArrowRouter(top_k=2)), ("routed", PHATGOOSERouter())):
        assert read_origin(step_folder(folder)).adapters == skills
        experiment = Configuration().load(run=folder).experiment()
        run = restore(experiment, folder, mesh)
        assert run.model.adapters.router == router
        assert len(run.table) == 1
        assert any("skills" in path for path in flat(run.parameters))
    pathlib.Path("in.txt").write_text("abc defg\n")
    # The router reads the text, so that a task which the run does not know gets the same answer.
    for task in (TASK, "unknown"):
        words = ["infer", "--run=arrow", f"--task={task}", "--input=in.txt", f"--output={task}.txt"]
        assert cli.main(words) == 0
    answer = pathlib.Path(f"{TASK}.txt").read_text()
    assert len(answer.splitlines()) == 1
    assert pathlib.Path("unknown.txt").read_text() == answer
    # The gates' run keeps the skills of the 32 tasks that own them, and their names.
    names = Configuration().load(run="routed").make(AdaptedFrom).skill_names
    assert names == restore(Configuration().load(run=private).experiment(), private, mesh).table.names
    # Its one task uses no mix that is one skill, so that an import takes the skills.
    assert cli.main(["import", "--from=arrow", "--output=again"]) == 0
    again = restore(Configuration().load(run="again").experiment(), "again", mesh)
    assert again.table.names == tuple(f"arrow_{number:02}" for number in range(32))
    kept = flat(restore(Configuration().load(run=private).experiment(), private, mesh).parameters)
    for path, leaf in flat(again.parameters).items():
        np.testing.assert_array_equal(leaf, kept[path])
    capsys.readouterr()
    assert adapt(private, TASK, "phatgoose", "wrong") == 1
    assert "is not the mixture of the run's 32 tasks" in capsys.readouterr().err
