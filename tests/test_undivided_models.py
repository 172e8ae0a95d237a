"""Every program that places a model on a mesh refuses a mesh that does not divide the T5, before it works."""

from types import SimpleNamespace

import numpy as np
import pytest

import poly_jax
from poly_jax import cli
from poly_jax.tasks.skillbench.compositions import benchmark
from poly_jax.tasks.skillbench.tasks import registered_name

pytestmark = pytest.mark.usefixtures("own_folder")

TASK = registered_name(benchmark().heldout[0].name)
TRAINED = registered_name(benchmark().train[0].name)
RECIPE = "--gin_file=recipes/skillbench/mhr.gin"
TOLD = "Partitioning.model 8 does not divide T5Config.num_heads 4; choose Partitioning.model from 1, 2, 4"
WORDS = {
    "train": [RECIPE, "--output_dir=out", "--gin.train.steps=1"],
    "adapt": ["--run=RUN", f"--task={TASK}", "--output_dir=out"],
    "eval": ["--run=RUN", "--output_dir=out"],
    "infer": ["--run=RUN", f"--task={TRAINED}", "--input=in.txt", "--output=out"],
    "sweep": ["--methods=RUN:mhr-z", f"--tasks={TASK}", "--output_dir=out"],
    "plan": [RECIPE, "--tasks=32", "--topology=v5e:2x4", "--html=out"],
    "launch": ["--target=slurm", "--name=a", "--slice=v5e:2x4", "--", "train", RECIPE, "--output_dir=out"],
}


@pytest.fixture
def _eight_devices(monkeypatch):
    """Let meshes have eight devices on the axis `model`, which nothing can be placed on."""
    devices = np.array([SimpleNamespace(platform="cpu")] * 8).reshape(1, 1, 8)
    mesh = SimpleNamespace(shape={"data": 1, "fsdp": 1, "model": 8}, devices=devices, size=8)
    monkeypatch.setattr(poly_jax.Partitioning, "mesh", lambda self, devices=None: mesh)
    monkeypatch.setattr("poly_jax.planning.environment.prepare_environment", lambda simulated=0: None)


@pytest.mark.slow
@pytest.mark.usefixtures("_eight_devices")
@pytest.mark.parametrize("program", WORDS)
def test_heads_that_the_mesh_does_not_divide_get_one_line_and_nothing_is_written(
    capsys, short_runs, tmp_path, program
):
    (tmp_path / "in.txt").write_text("abc\n")
    words = [program, *(word.replace("RUN", short_runs["mhr"]) for word in WORDS[program])]
    assert cli.main([*words, "--gin.Partitioning.model=8"]) == 1
    assert capsys.readouterr().err == f"poly-jax: error: {TOLD}\n"
    assert [path.name for path in tmp_path.iterdir()] == ["in.txt"]


@pytest.mark.slow
@pytest.mark.usefixtures("_eight_devices")
def test_a_loaded_run_needs_a_mesh_that_divides_it(short_runs):
    with pytest.raises(poly_jax.UserError, match=TOLD):
        poly_jax.load(short_runs["mhr"], mesh=poly_jax.Partitioning(model=8).mesh())
