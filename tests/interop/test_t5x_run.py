"""A run exported to T5X with its adapters is imported bit for bit, with its tasks and settings."""

import json
import pathlib
import shutil
import subprocess
import sys

import numpy as np
import pytest

from poly_jax import cli, configuration
from poly_jax.adapters.config import Adapters
from poly_jax.data.task_table import TaskTable
from poly_jax.training.open_run import open_run
from poly_jax.weights.backbone import read_backbone
from poly_jax.weights.parameter_names import is_adapter_parameter
from poly_jax.weights.t5x_checkpoint import open_t5x
from poly_jax.weights.tree import flatten

pytestmark = pytest.mark.usefixtures("own_folder")


@pytest.fixture(scope="module")
def exported(poly_run, tmp_path_factory) -> pathlib.Path:
    folder = tmp_path_factory.mktemp("to_t5x") / "out"
    assert cli.main(["export", f"--run={poly_run}", "--format=t5x_adapters", f"--output={folder}"]) == 0
    return folder


def weights_of(run):
    loaded = configuration.load([str(pathlib.Path(run) / "config.gin")])
    return open_run(str(run), loaded.experiment())


def error_of(capsys, *arguments) -> str:
    assert cli.main(["import", *arguments]) == 1
    lines = capsys.readouterr().err.strip().splitlines()
    return lines[-1]


def test_the_checkpoint_holds_backbone_skills_and_routers_as_they_are(exported, poly_run):
    weights = weights_of(poly_run)
    stored = {name: tensor.load() for name, tensor in open_t5x(exported).items()}
    assert stored.keys() == weights.backbone.keys() | weights.skills.keys()
    for name, leaf in stored.items():
        expected = weights.skills[name] if is_adapter_parameter(name) else weights.backbone[name].load()
        np.testing.assert_array_equal(leaf, expected)


def test_task_names_are_written_beside_it_in_the_order_of_their_ids(exported, poly_run):
    assert json.loads((exported / "tasks.json").read_text())["tasks"] == list(
        weights_of(poly_run).table.names
    )


def test_model_gin_makes_the_same_model(exported, poly_run):
    weights = weights_of(poly_run)
    loaded = configuration.load(["runs/multitask.gin", str(exported / "model.gin")])
    experiment = loaded.experiment()
    assert experiment.model == weights.config
    assert experiment.transformer(weights.table).adapters == weights.adapters
    assert loaded.make(Adapters, n_tasks=5).skill == weights.adapters.skill


def test_importing_the_export_gives_the_same_run(exported, poly_run):
    assert cli.main(["import", f"--from={exported}", "--output=back"]) == 0
    there, back = weights_of(poly_run), weights_of("back")
    assert back.table == there.table
    assert back.adapters == there.adapters
    assert back.origin.backbone_hash == there.origin.backbone_hash
    assert back.skills.keys() == there.skills.keys()
    for name, leaf in back.skills.items():
        np.testing.assert_array_equal(leaf, there.skills[name])


def test_the_config_gin_that_t5x_leaves_in_its_folders_does_not_make_them_runs_of_poly_jax(
    exported, poly_run
):
    left = pathlib.Path(shutil.copytree(exported, "from_t5x"))
    (left / "config.gin").write_text("# The operative configuration of a t5x program.\n")
    assert cli.main(["import", f"--from={left}", "--output=back"]) == 0
    assert weights_of("back").skills.keys() == weights_of(poly_run).skills.keys()


def test_the_import_may_use_the_original_backbone(exported, poly_fixture):
    base = poly_fixture / "base"
    assert cli.main(["import", f"--from={exported}", "--output=back", f"--backbone={base}"]) == 0
    assert weights_of("back").origin.backbone == str(base.absolute())


def test_read_as_a_backbone_the_checkpoint_is_the_frozen_t5(exported, poly_fixture):
    got, expected = flatten(read_backbone(exported)), flatten(read_backbone(poly_fixture / "base"))
    assert got.keys() == expected.keys()


def test_another_backbone_is_refused(exported, shared_data, capsys):
    other = shared_data / "t5x" / "t5x_tiny_v1_1"
    other = next(path for path in sorted(other.rglob("checkpoint_*")) if path.is_dir())
    message = error_of(capsys, f"--from={exported}", "--output=back", f"--backbone={other}")
    assert "is not the backbone that" in message


def test_settings_other_than_those_of_the_checkpoint_are_refused(exported, capsys):
    message = error_of(capsys, f"--from={exported}", "--output=back", "--gin.LoRA.rank=2")
    assert "does not fit the model" in message
    assert "lora_a" in message


def test_a_checkpoint_without_a_task_table_is_refused_with_the_command_that_writes_one(
    exported, tmp_path, capsys
):
    alone = tmp_path / "deep" / "er" / "alone"
    alone.parent.mkdir(parents=True)
    (alone).symlink_to(next(exported.glob("checkpoint_*")))
    message = error_of(capsys, f"--from={alone}", "--output=back")
    assert message.endswith("`poly-jax export --format=t5x_adapters`")
    TaskTable(("alpha", "bravo", "charlie", "delta", "echo")).save("names.json")
    arguments = [f"--from={alone}", "--output=back", "--tasks=names.json", "--gin_file=model.gin"]
    (tmp_path / "model.gin").write_text((exported / "model.gin").read_text())
    assert cli.main(["import", *arguments]) == 0


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--task=alpha"], "t5x_adapters holds all tasks"),
        (["--backbone=x"], "--format=t5x_adapters is for adapters"),
    ],
)
def test_flags_that_do_not_fit_the_format_are_refused_in_one_line(poly_run, capsys, flags, message):
    source = [] if "--backbone=x" in flags else [f"--run={poly_run}"]
    assert cli.main(["export", *source, "--format=t5x_adapters", "--output=o", *flags]) == 1
    assert message in capsys.readouterr().err


def test_poly_jaxs_programs_do_not_use_the_gin_names_of_t5xs_programs():
    # In t5x's processes, `train`, `evaluate` and `infer` are t5x's; gin refuses a name that is not unique.
    program = (
        "import poly_jax.interop.t5x.configurables, gin\n"
        "gin.get_configurable('T5Config')\n"
        "for name in ('train', 'evaluate', 'infer'):\n"
        "    try: gin.get_configurable(name)\n"
        "    except ValueError: continue\n"
        "    raise SystemExit(name)"
    )
    assert subprocess.run([sys.executable, "-c", program]).returncode == 0
