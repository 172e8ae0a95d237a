"""The skill of docs/new_skill.md: its file and its gin lines are enough to train, evaluate and average it."""

import json
import pathlib
import sys

import jax.numpy as jnp
import numpy as np
import pytest

from poly_jax import cli, configuration
from poly_jax.adapters.config import Adapters
from poly_jax.adapters.skill import Skill
from poly_jax.training.saved_step import open_trained
from poly_jax.training.saved_steps import step_folder

SHORT = ["--gin.Adapters.sites=('.*/attention/query',)", "--gin.train.steps=2", "--gin.Data.batch_size=8"]


@pytest.fixture(scope="module")
def page(tmp_path_factory, page_block):
    """The page's two files in the current folder, once: gin registers a class only once in a process."""
    folder = tmp_path_factory.mktemp("skill")
    (folder / "my_skill.py").write_text(page_block("new_skill", "python"))
    (folder / "bias.gin").write_text(page_block("new_skill", "gin"))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.syspath_prepend(str(folder))
        yield
    sys.modules.pop("my_skill", None)


def made() -> Skill:
    loaded = configuration.load(["adapters/lora.gin", "routers/mhr.gin", "bias.gin"])
    skill = loaded.make(Adapters, n_tasks=2).skill
    assert isinstance(skill, Skill)
    return skill


def test_the_skill_on_the_page_adds_the_mixed_bias_of_each_row(page):
    skill = made()
    assert skill.scale == 2.0
    rng = np.random.default_rng(0)
    bias, weights = rng.normal(size=(2, 3, 4)), rng.normal(size=(5, 2, 3))
    inputs, outputs = rng.normal(size=(5, 7, 6)), rng.normal(size=(5, 7, 8))
    mixed = skill.mix({"bias": jnp.asarray(bias)}, jnp.asarray(weights))
    adapted = skill.apply(mixed, jnp.asarray(inputs), jnp.asarray(outputs))
    expected = outputs.copy()
    for row in range(5):
        for split in range(2):
            part = sum(weights[row, split, skill_] * bias[split, skill_] for skill_ in range(3))
            expected[row, :, 4 * split : 4 * split + 4] += 2.0 * part
    np.testing.assert_allclose(adapted, expected, atol=1e-5)
    np.testing.assert_allclose(
        skill.average({"bias": jnp.asarray(bias)})["bias"], bias.mean(1)[:, None], atol=1e-6
    )


@pytest.mark.slow
def test_the_skill_trains_from_two_files_and_a_merge_is_refused_in_one_line(page, capsys):
    words = ["--gin_file=recipes/skillbench/mhr.gin", "--gin_file=bias.gin", "--output_dir=out"]
    assert cli.main(["train", *words, *SHORT]) == 0
    trained = {name: tensor.load() for name, tensor in open_trained(step_folder("out")).items()}
    biases = [leaf for name, leaf in trained.items() if name.endswith("skills/bias")]
    assert biases
    assert all(leaf.shape[:2] == (8, 8) for leaf in biases)
    assert any(leaf.any() for leaf in biases)
    losses = [json.loads(line)["loss"] for line in pathlib.Path("out/metrics.jsonl").read_text().splitlines()]
    assert np.isfinite(losses).all()
    capsys.readouterr()
    task = "--task=skillbench_krl"
    assert cli.main(["export", "--run=out", "--format=t5x", task, "--output=merged"]) == 1
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("poly-jax: error: skills of the kind Bias cannot be merged")
