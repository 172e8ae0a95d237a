"""The command `plan`: mistakes, what docs/planning.md shows, and the environment of the process."""

import os
import pathlib
import re
import shlex
import subprocess
import sys

import pytest

from poly_jax import cli
from poly_jax.cli import platforms
from poly_jax.configuration import Configuration
from poly_jax.errors import UserError
from poly_jax.planning.environment import prepare_environment

ROOT = pathlib.Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "planning.md").read_text()
MISTAKES = re.findall(r"^    \$ poly-jax (.*)\n    (poly-jax: error: .*)$", PAGE, re.MULTILINE)
RECIPE = ["--gin_file=recipes/skillbench/mhr.gin"]

pytestmark = pytest.mark.usefixtures("own_folder")


@pytest.fixture
def _same_process(monkeypatch):
    """Leave this process's environment as it is."""
    monkeypatch.setattr("poly_jax.planning.environment.prepare_environment", lambda simulated=0: None)


@pytest.mark.usefixtures("_same_process")
@pytest.mark.parametrize("number", range(len(MISTAKES)))
def test_the_mistakes_on_the_page_get_the_line_that_it_shows(capsys, number):
    words, told = MISTAKES[number]
    assert cli.main(shlex.split(words)) == 1
    assert capsys.readouterr().err == f"{told}\n"


def test_the_page_shows_mistakes_in_the_topology_the_mesh_and_the_batch():
    assert [re.search(r"slice|Partitioning|Data", told)[0] for _, told in MISTAKES] == [
        "slice",
        "Partitioning",
        "Partitioning",
        "Data",
    ]


@pytest.mark.usefixtures("_same_process")
@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (["--topology=v9:2x2"], "names no accelerator"),
        (["--topology=h100:2x8"], "has GPUs, and plans are for TPUs"),
        (["--topology=v5e"], "has no topology; write v5e:4x4 or the like"),
        (["--topology=v5e:4x5"], "slice 'v5e:4x5' does not exist; v5e has the topologies 1x1, 2x2"),
        (["--topology=v5e:2x2", "--gin.Data.batch_size=0"], "Data.batch_size is 0; it must be at least 1"),
        (["--topology=v5e:2x2", "--gin.train.microbatches=0"], "train.microbatches is 0; it must be at"),
        (
            ["--topology=v5e:2x4", "--program=both", "--gin.evaluate.batch_size=12"],
            "evaluate.batch_size 12 cannot be divided over the 8 devices of v5e:2x4",
        ),
        (
            ["--topology=v5e:2x4", "--program=decode", "--gin.evaluate.batch_size=0"],
            "evaluate.batch_size is 0; it must be at least 1",
        ),
        (["--topology=v5e:16x32"], "has 512 chips, and the largest v5e slice has 256"),
        (["--topology=v5e:2x2", "--share_of_peak=2"], "--share_of_peak=2 must be above 0 and at most 1"),
        (["--topology=v5e:2x2", "--gin.train.microbatches=3"], "train.microbatches 3 does not divide"),
        (["--topology=v5e:2x2", "--html=nowhere/x.html"], "nowhere/x.html cannot be written"),
        (["--topology=v5e:2x2", "--slices=3"], "cannot be divided over the 12 devices of 3 slices v5e:2x2"),
        (
            ["--topology=v5e:2x2", "--slices=3", "--gin.Partitioning.fsdp=3"],
            "Partitioning.fsdp 3 x Partitioning.model 1 does not divide the 4 devices of v5e:2x2",
        ),
        (["--topology=v5e:2x2", "--gin.train.trainable='some'"], "train.trainable"),
        (["--topology=v5e:2x2", "--gin.Data.max_segments=0"], "max_segments is 0"),
        (["--topology=v5e:2x2", "--gin.ChoiceLoss.lm=0.5"], "this configuration does not use ChoiceLoss"),
    ],
)
def test_a_mistake_gets_one_line(capsys, flags, told):
    assert cli.main(["plan", *RECIPE, "--tasks=32", *flags]) == 1
    shown = capsys.readouterr().err
    assert told in shown
    assert shown.count("\n") == 1


@pytest.mark.usefixtures("_same_process")
def test_without_libtpu_the_line_says_what_to_install(capsys, monkeypatch):
    found = platforms.importlib.util.find_spec
    monkeypatch.setattr(
        "importlib.util.find_spec", lambda name, *more: None if name == "libtpu" else found(name, *more)
    )
    assert cli.main(["plan", *RECIPE, "--tasks=32", "--topology=v5e:2x2"]) == 1
    last = capsys.readouterr().err.splitlines()[-1]
    assert "pip install '.[plan]'" in last
    assert "--simulate" in last


def test_a_recipe_whose_data_is_not_here_can_be_planned_with_a_number_of_tasks():
    needs_data = Configuration(("recipes/t0/pretrain.gin",))
    with pytest.raises(UserError, match="P3"):
        needs_data.load()
    data = needs_data.load(unset_is_empty=True).arguments("train", output_dir="")["experiment"].data
    assert data.batch_size == 8


def test_a_process_that_plans_looks_for_no_tpu_and_keeps_no_program(monkeypatch):
    monkeypatch.setattr(os, "environ", dict(os.environ))
    prepare_environment(4)
    expected = {"JAX_PLATFORMS": "cpu", "JAX_ENABLE_COMPILATION_CACHE": "false", "JAX_NUM_CPU_DEVICES": "4"}
    assert {name: os.environ[name] for name in expected} == expected


@pytest.mark.parametrize(
    ("libtpu", "vendor", "plugins", "expected"),
    [
        (True, "0x8086", False, "cpu"),
        (True, "0x1ae0", False, None),
        (True, "0x8086", True, None),
        (False, "0x8086", False, None),
    ],
)
def test_jax_is_told_of_cpus_only_where_libtpu_has_no_tpu(
    monkeypatch, tmp_path, libtpu, vendor, plugins, expected
):
    (tmp_path / "0").mkdir()
    (tmp_path / "0" / "vendor").write_text(f"{vendor}\n")
    monkeypatch.setattr(platforms, "_DEVICES", tmp_path)
    monkeypatch.setattr(platforms, "_plugins", lambda: plugins)
    monkeypatch.setattr(platforms.importlib.util, "find_spec", lambda name: object() if libtpu else None)
    monkeypatch.setattr(
        os, "environ", {name: value for name, value in os.environ.items() if name != "JAX_PLATFORMS"}
    )
    platforms.leave_out_tpu()
    assert os.environ.get("JAX_PLATFORMS") == expected


def test_an_ordinary_command_says_nothing_about_tpus():
    code = "from poly_jax import cli; cli.leave_out_tpu(); import jax; print(jax.devices()[0].platform)"
    environment = {name: value for name, value in os.environ.items() if name != "JAX_PLATFORMS"}
    environment["PYTHONPATH"] = str(ROOT)
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    if done.stdout.strip() != "cpu":
        pytest.skip(f"this machine has accelerators: {done.stdout.strip()}")
    assert done.stderr == ""
