"""`train` from a gin configuration to a restored model, with and without an interruption."""

import dataclasses
import functools
import json
import pathlib
import tempfile
from types import SimpleNamespace

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest
from etils import epath

from poly_jax import configuration
from poly_jax.adapters.lora import LoRA
from poly_jax.data.quiet import seqio
from poly_jax.data.task_table import TaskTable
from poly_jax.errors import UserError
from poly_jax.model.choice_loss import ChoiceLoss
from poly_jax.model.loss import TokenLoss
from poly_jax.model.parameters import parameter_shapes
from poly_jax.model.transformer import Transformer
from poly_jax.tasks.skillbench import compositions, tasks
from poly_jax.training import loop, run_folder
from poly_jax.training import train as train_module
from poly_jax.training.guards import check_packing
from poly_jax.training.mesh import Partitioning
from poly_jax.training.progress import Progress
from poly_jax.training.restore import restore
from poly_jax.training.time_spent import KINDS, TimeSpent, read_report
from poly_jax.training.train import train
from poly_jax.weights import single_file

STEPS = 3
MIXTURE = "train_test_pair"
CONFIG = """
train.experiment = @Experiment()
train.steps = 3
train.save_every = 1
train.report_every = 1
train.optimizer = @Optimizer()
Optimizer.warmup_fraction = 0.0
Experiment.backbone = '{backbone}'
Data.mixture = 'train_test_pair'
"""
TINY = pathlib.Path(__file__).parents[1] / "tiny_run.gin"


@pytest.fixture(autouse=True, scope="module")
def _mixture():
    """Register a mixture of only two tasks, because reading a mixture takes time for each task."""
    names = [tasks.registered_name(task.name) for task in compositions.benchmark().train[:2]]
    seqio.MixtureRegistry.add(MIXTURE, names, default_rate=1.0)
    yield
    seqio.MixtureRegistry.remove(MIXTURE)


@pytest.fixture(scope="module")
def backbone(tmp_path_factory):
    """Files of random weights in the shapes of the configuration."""

    def make(name, seed):
        path = tmp_path_factory.mktemp("backbone") / f"{name}.safetensors"
        rng = np.random.default_rng(seed)
        shapes, _ = parameter_shapes(Transformer(configured(path).experiment().model))
        tree = jax.tree.map(lambda leaf: rng.normal(size=leaf.shape, scale=0.2).astype(np.float32), shapes)
        single_file.save(path, tree, {})
        return path

    return SimpleNamespace(right=make("right", 0), wrong=make("wrong", 1))


def configured(path, *more):
    """Load the configuration with a backbone and further bindings."""
    with tempfile.TemporaryDirectory() as folder:
        file = pathlib.Path(folder) / "run.gin"
        file.write_text("\n".join([TINY.read_text(), CONFIG.format(backbone=path), *more]))
        return configuration.load([str(file)])


def trains(loaded, folder):
    return train(**loaded.arguments("train", output_dir=str(folder)))


def lines(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def everything_in(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def run(backbone, tmp_path_factory):
    """A run that was not interrupted."""
    folder = tmp_path_factory.mktemp("runs") / "whole"
    state = trains(configured(backbone.right), folder)
    return SimpleNamespace(folder=folder, trained=jax.tree.map(np.asarray, state.trained))


def test_every_reported_step_has_a_line_with_loss_and_speed(run):
    found = lines(run.folder)
    assert [line["step"] for line in found] == [1, 2, 3]
    for line in found:
        assert 0 < line["loss"] < 20
        assert line["gradient_norm"] > 0
        assert {"steps_per_second", "examples_per_second"} <= set(line)
    assert list(run.folder.glob("events.out.tfevents*"))


def test_the_time_of_a_run_is_reported_in_its_folder_and_with_its_metrics(run):
    report = read_report(epath.Path(run.folder))
    assert (report.steps, report.step, report.furthest_step, report.programs) == (3, 3, 3, 1)
    assert sum(report.seconds.values()) == pytest.approx(report.until - report.began)
    for kind in ("start_up", "compile", "step", "save_stall"):
        assert report.seconds[kind] > 0
    for kind in ("evaluation", "lost_to_restarts", "idle"):
        assert report.seconds[kind] == 0
    for line in lines(run.folder):
        assert {f"time/{kind}" for kind in KINDS} | {"goodput"} <= set(line)
        assert 0 <= line["goodput"] <= 1


def test_each_part_of_the_loop_is_counted_as_what_it_is(backbone, tmp_path, monkeypatch):
    now = [1000.0]

    def takes(seconds, function):
        def slowly(*arguments, **named):
            now[0] += seconds
            return function(*arguments, **named)

        return slowly

    monkeypatch.setattr(train_module, "claim_start", lambda: now[0])
    monkeypatch.setattr(loop, "TimeSpent", functools.partial(TimeSpent, clock=lambda: now[0]))
    monkeypatch.setattr(loop, "begin", takes(7, loop.begin))
    monkeypatch.setattr(loop, "check_task_ids", takes(10, loop.check_task_ids))
    monkeypatch.setattr(loop, "save_position", takes(100, loop.save_position))
    loaded = configured(backbone.right, "train.save_every = 1000")
    trains_until_step_2(loaded, tmp_path / "run")
    # The first step counts as compilation.
    expected = {"start_up": 7, "compile": 10, "step": 10}
    assert nonzero_times(tmp_path / "run") == expected
    now[0] += 55
    # Without a checkpoint, it begins at the first step again. Two steps were begun, and one was complete.
    trains(loaded, tmp_path / "run")
    assert nonzero_times(tmp_path / "run") == {
        "start_up": 7 + 7,
        "compile": 10 + 10,
        "step": 10 + 10 + 10,
        "save_stall": 100,
        "idle": 55,
    }
    # A command that is done already counts nothing.
    now[0] += 55
    before = (tmp_path / "run" / "time_spent.json").read_bytes()
    trains(loaded, tmp_path / "run")
    assert (tmp_path / "run" / "time_spent.json").read_bytes() == before


def nonzero_times(folder):
    report = read_report(epath.Path(folder))
    assert sum(report.seconds.values()) == pytest.approx(report.until - report.began)
    return {kind: seconds for kind, seconds in report.seconds.items() if seconds}


def test_the_folder_holds_the_configuration_as_given_and_as_used(run):
    assert "Optimizer.warmup_fraction = 0.0" in (run.folder / "config.gin").read_text()
    operative = (run.folder / "operative_config.gin").read_text()
    assert "LearnedRouter.temperature = 1.0" in operative


def test_a_checkpoint_holds_the_trained_tree_and_the_names_of_the_tasks(run, flat):
    steps = {path.name for path in (run.folder / "checkpoints").iterdir()}
    assert steps == {str(STEPS - 1), str(STEPS)}  # The two newest are kept.
    step = run.folder / "checkpoints" / str(STEPS)
    with ocp.StandardCheckpointer() as reader:
        saved = flat(reader.restore(step / "trained"))
    assert {name.split("/")[-2] for name in saved} == {"skills", "router"}
    for name, leaf in flat(run.trained).items():
        np.testing.assert_array_equal(saved[name], leaf)
    names = json.loads((step / "tasks" / "metadata").read_text())
    assert names == list(TaskTable.of(MIXTURE).names)
    assert {child.name for child in step.iterdir() if child.is_dir()} == {
        "trained",
        "optimizer",
        "tasks",
        "origin",
        "checksums",
    }
    # Each checkpoint has its position in the data.
    assert {path.name.split("-")[0] for path in (run.folder / "data").iterdir()} == steps


def trains_until_step_2(loaded, folder):
    """Train, and be interrupted in step 2, after the checkpoint of step 1."""
    report = Progress.report

    def stops(self, step, metrics):
        if step == 2:
            raise KeyboardInterrupt
        return report(self, step, metrics)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Progress, "report", stops)
        with pytest.raises(KeyboardInterrupt):
            trains(loaded, folder)


@pytest.mark.slow
class TestAnInterruptedRun:
    @pytest.fixture(scope="class")
    def resumed(self, backbone, tmp_path_factory):
        """A run that was stopped in step 2, after the checkpoint of step 1, and started again."""
        folder = tmp_path_factory.mktemp("runs") / "stopped"
        trains_until_step_2(configured(backbone.right), folder)
        before = lines(folder)
        assert [path.name for path in (folder / "checkpoints").iterdir()] == ["1"]
        state = trains(configured(backbone.right), folder)
        return SimpleNamespace(folder=folder, trained=jax.tree.map(np.asarray, state.trained), before=before)

    def test_it_ends_bit_for_bit_like_an_uninterrupted_run(self, run, resumed):
        jax.tree.map(np.testing.assert_array_equal, resumed.trained, run.trained)

    def test_its_losses_equal_the_losses_of_an_uninterrupted_run(self, run, resumed):
        assert [line["step"] for line in resumed.before] == [1]
        assert [(line["step"], line["loss"]) for line in lines(resumed.folder)] == [
            (line["step"], line["loss"]) for line in lines(run.folder)
        ]

    def test_training_a_finished_run_again_changes_nothing(self, backbone, resumed):
        before = everything_in(resumed.folder / "checkpoints")
        state = trains(configured(backbone.right), resumed.folder)
        jax.tree.map(np.testing.assert_array_equal, state.trained, resumed.trained)
        assert everything_in(resumed.folder / "checkpoints") == before


PACKED = (
    "Data.packing = 'best-fit'",
    "Data.inputs_length = 48",
    "Data.targets_length = 40",
    "Data.batch_size = 4",
    "train.microbatches = 2",
)


def test_a_packed_run_goes_on_with_the_rows_that_would_have_come_next(backbone, tmp_path):
    whole = trains(configured(backbone.right, *PACKED), tmp_path / "whole")
    trains_until_step_2(configured(backbone.right, *PACKED), tmp_path / "stopped")
    resumed = trains(configured(backbone.right, *PACKED), tmp_path / "stopped")
    jax.tree.map(np.testing.assert_array_equal, resumed.trained, whole.trained)
    assert [line["loss"] for line in lines(tmp_path / "stopped")] == [
        line["loss"] for line in lines(tmp_path / "whole")
    ]
    assert len(list((tmp_path / "whole" / "data").glob("3-*.waiting.safetensors"))) == 1


@dataclasses.dataclass(frozen=True)
class Unpacked(LoRA):
    """A kind of skill that does not know packed rows."""

    def apply(self, mixed, inputs, outputs, uniform=None):
        return super().apply(mixed, inputs, outputs, uniform)


def test_rows_are_packed_only_where_the_loss_and_the_skills_can_take_them_apart(backbone):
    loaded = configured(backbone.right, *PACKED)
    experiment = loaded.experiment()
    adapters = dataclasses.replace(experiment.adapters, n_tasks=2)
    check_packing(experiment.data, TokenLoss(), adapters)
    with pytest.raises(UserError, match=r"'best-fit', and ChoiceLoss .* bind Data\.packing = 'none'"):
        check_packing(experiment.data, ChoiceLoss(), adapters)
    with pytest.raises(UserError, match=r"Unpacked\.apply has no argument `segments`"):
        check_packing(experiment.data, TokenLoss(), dataclasses.replace(adapters, private_skill=Unpacked()))


def test_a_run_that_failed_before_its_first_checkpoint_may_be_started_with_other_settings(backbone, tmp_path):
    """The first step was never reached, so the folder has a configuration and no checkpoint."""
    wrong = configured(backbone.right, "Optimizer.learning_rate = 0.5")
    run_folder.claim(epath.Path(tmp_path / "run"), wrong.texts)
    run_folder.claim(epath.Path(tmp_path / "run"), configured(backbone.right).texts)
    assert "learning_rate" not in (tmp_path / "run" / "config.gin").read_text()


def test_restore_gives_the_unchanged_backbone_with_the_trained_adapters(run, backbone, flat):
    experiment = configured(backbone.right).experiment()
    restored = restore(experiment, str(run.folder), Partitioning().mesh())
    assert not restored.model.train
    assert restored.table == TaskTable.of(MIXTURE)
    assert restored.step.name == str(STEPS)
    frozen, _ = single_file.load(backbone.right)
    expected = flat(frozen) | flat(run.trained)
    got = flat(restored.parameters)
    assert set(got) == set(expected)
    for name, leaf in expected.items():
        np.testing.assert_array_equal(got[name], leaf, err_msg=name)
    # The backbone counts as the same when it is loaded in bfloat16.
    half = dataclasses.replace(experiment.model, dtype="bfloat16")
    restore(dataclasses.replace(experiment, model=half), str(run.folder), Partitioning().mesh())


def test_a_backbone_other_than_that_of_the_run_is_refused(run, backbone):
    experiment = configured(backbone.wrong).experiment()
    with pytest.raises(UserError, match=r"wrong\.safetensors is not the backbone that") as caught:
        restore(experiment, str(run.folder), Partitioning().mesh())
    assert "\n" not in str(caught.value)


def test_a_model_with_other_shapes_is_refused(run, backbone):
    experiment = configured(backbone.right, "Adapters.n_skills = 5").experiment()
    with pytest.raises(UserError, match="does not fit the model") as caught:
        restore(experiment, str(run.folder), Partitioning().mesh())
    assert str(caught.value).startswith("Adapters.n_skills is 5, and the checkpoint has 3: ")
    assert "skills/lora_b is [2, 3, 1, 8] and the model has [2, 5, 1, 8]" in str(caught.value)
    experiment = configured(backbone.right, "LoRA.rank = 2", "Adapters.n_splits = 1").experiment()
    both = r"^Adapters.n_splits is 1, and the checkpoint has 2; LoRA.rank is 2, and the checkpoint has 1: "
    with pytest.raises(UserError, match=both):
        restore(experiment, str(run.folder), Partitioning().mesh())
    experiment = configured(backbone.right, "T5Config.mlp_dim = 32").experiment()
    with pytest.raises(UserError, match=r"right\.safetensors does not fit the model"):
        restore(experiment, str(run.folder), Partitioning().mesh())


def test_a_folder_without_a_checkpoint_is_reported_by_name(tmp_path, backbone):
    experiment = configured(backbone.right).experiment()
    with pytest.raises(UserError, match="holds no checkpoint"):
        restore(experiment, str(tmp_path), Partitioning().mesh())


@pytest.mark.parametrize("holds", ["run", "file"])
def test_a_folder_with_other_content_is_refused_before_anything_is_read(
    run, backbone, tmp_path, monkeypatch, holds
):
    monkeypatch.setattr(train_module.guards, "registered_table", lambda *_: pytest.fail("data are read"))
    loaded = configured(backbone.right, "Optimizer.learning_rate = 0.5")
    folder, named = run.folder, "holds another run .*learning_rate = 0.5"
    if holds == "file":
        folder, named = tmp_path, "exists and holds no run of this program"
        (tmp_path / "thesis.tex").write_text("text")
    before = everything_in(folder)
    with pytest.raises(UserError, match=named) as caught:
        trains(loaded, folder)
    assert "\n  " not in str(caught.value).split("In call to configurable")[0].rstrip()
    assert everything_in(folder) == before


def test_the_message_about_another_run_says_which_binding_only_one_of_them_has(run, backbone):
    with pytest.raises(
        UserError, match=r"holds another run \(it lacks 'Optimizer.weight_decay = 0.5'\); choose"
    ):
        trains(configured(backbone.right, "Optimizer.weight_decay = 0.5"), run.folder)


@pytest.mark.parametrize(
    ("binding", "named"),
    [
        ("train.trainable = 'heads'", "trainable is 'heads'; use 'adapters' or 'all'"),
        ("Experiment.adapters = None", "adapters is not bound: bind it, or train 'all'"),
        ("Experiment.backbone = None", "backbone is not bound"),
        ("train.microbatches = 3", "microbatches 3 does not divide Data.batch_size 8"),
        ("train.microbatches = 0", "microbatches is 0; it must be at least 1"),
        ("train.steps = 0", "steps is 0; it must be at least 1"),
        ("train.report_every = 0", "report_every is 0; it must be at least 1"),
        ("train.router_anneal_steps = -1", "router_anneal_steps is -1; it must be 0"),
        ("train.save_every = -1", "save_every is -1; it must be at least 1"),
        (
            "train.keep_best = 'x'\ntrain.eval_every = 1",
            "keep_best is 'x'; give a task and its metric, .* 'mean/x'",
        ),
        ("train.keep_best = 'mean/x'", "keep_best is 'mean/x', and nothing is evaluated .* train.eval_every"),
        ("Data.mixture = 'train_test_pear'", "train_test_pear"),
        ("Data.packing = 'best'", "packing.* 'best'"),
        ("Data.batch_size = 0", r"Data\.batch_size is 0; it must be at least 1"),
        ("Data.max_segments = 0", "max_segments is 0; it must be at least 1"),
        ("Adapters.n_splits = 5", "n_splits is 5, which does not divide the width 16"),
        ("Adapters.sites = 'encoder/query'", "'encoder/query', which matches no site"),
        (
            "T5Config.vocab_size = 64",
            "'train_test_pair' .* has ids 0 to 258, and the embedding has 64",
        ),
        ("T5Config.emb_dim = 32", "does not fit the model"),
        ("Experiment.backbone = '/nowhere.safetensors'", "/nowhere.safetensors does not exist"),
    ],
)
def test_impossible_settings_are_refused_before_the_folder_is_made(tmp_path, backbone, binding, named):
    with pytest.raises(UserError, match=named):
        trains(configured(backbone.right, binding), tmp_path / "run")
    assert not (tmp_path / "run").exists()
