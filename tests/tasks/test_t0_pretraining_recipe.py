"""The recipe of pretraining on T0's mixture has the published settings, and its tiny twin trains."""

import json
import shutil

import numpy as np
import pytest

from poly_jax import cli
from poly_jax.configuration import Configuration
from poly_jax.data.quiet import seqio
from poly_jax.data.task_table import TaskTable
from poly_jax.tasks.t0_pretraining import tasks

SMALL = [
    "--gin.Adapters.sites=('encoder/attention/query',)",
    "--gin.train.steps=3",
    "--gin.T5Config.num_encoder_layers=1",
    "--gin.T5Config.num_decoder_layers=1",
]
pytestmark = pytest.mark.usefixtures("own_folder")


@pytest.fixture(autouse=True)
def _registry(monkeypatch):
    monkeypatch.setattr(seqio.TaskRegistry, "_REGISTRY", dict(seqio.TaskRegistry._REGISTRY))
    monkeypatch.setattr(seqio.MixtureRegistry, "_REGISTRY", dict(seqio.MixtureRegistry._REGISTRY))
    monkeypatch.setattr(tasks, "_registered", {})


def train(folder, *more):
    words = ["train", "--gin_file=recipes/t0/pretrain_tiny.gin", f"--gin.P3='{folder}'", "--output_dir=out"]
    assert cli.main([*words, *SMALL, *more]) == 0


def test_the_tiny_recipe_trains_on_rendered_rows_and_its_run_can_be_read(tmp_path, capsys):
    folder = tmp_path / "rows"
    folder.mkdir()
    for name in ("glue_mrpc_replace", "trec_trec1"):
        rows = [{"inputs": f"{name} {n}", "targets": "x"} for n in range(6)]
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    train(folder)
    assert "2 tasks" in capsys.readouterr().out
    loaded = Configuration().load(run="out")
    assert loaded.experiment().data.mixture == "t0_train"
    assert loaded.make("Optimizer").algorithm == "adafactor"


def test_the_tiny_recipe_trains_on_real_rows_with_a_data_set_as_a_task(shared_data, tmp_path, capsys):
    folder = tmp_path / "rows"
    folder.mkdir()
    for name in ("glue_mrpc_equivalent", "glue_mrpc_replace", "samsum_Summarize_"):
        shutil.copy(shared_data / "t0" / "p3_rendered" / f"{name}.jsonl", folder)
    train(folder, "--gin.t0_pretraining.register.task_identity='data_set'")
    assert "2 tasks" in capsys.readouterr().out
    assert TaskTable.of("t0_train").names == ("t0_glue_mrpc", "t0_samsum")


def test_the_recipe_has_the_published_settings():
    loaded = Configuration(
        ("recipes/t0/pretrain.gin",),
        ("P3 = 'p3'", "VOCABULARY = 'spiece.model'", "Experiment.backbone = 'random'"),
    ).load()
    arguments = loaded.arguments("train", output_dir="out")
    experiment, optimizer = arguments["experiment"], arguments["optimizer"]
    assert arguments["steps"] == 100_000
    data = experiment.data
    # Published: 16 examples, one in a row. Of T0's rows, 1.8 fit into a packed one on average.
    assert (data.packing, data.batch_size, data.inputs_length, data.targets_length) == (
        "best-fit",
        8,
        256,
        256,
    )
    adapters = experiment.adapters.for_tasks([str(n) for n in range(313)])
    assert (adapters.n_skills, adapters.n_splits, adapters.skill.rank) == (8, 64, 1)
    assert adapters.router.sampling is False
    assert experiment.model.emb_dim == 2048
    assert (optimizer.algorithm, optimizer.parameter_scaling) == ("adafactor", False)
    assert (optimizer.weight_decay, optimizer.clip_norm) == (0.0, 1.0)
    # Linear from 0 in 6 % of the steps, then linear to 0.
    for peak in (optimizer.learning_rate, optimizer.router_learning_rate):
        rate = optimizer.schedule(peak, 100_000)
        np.testing.assert_allclose(
            [rate(0), rate(3_000), rate(6_000), rate(53_000)], peak * np.array([0, 0.5, 1, 0.5])
        )
    assert (optimizer.learning_rate, optimizer.router_learning_rate) == (1e-3, 0.1)
