"""Runs of November 2026 restore, resume, predict and export as the version that wrote them did.

`runs.zip` was written by the program at commit 2d791cf, on the embedded benchmark. It holds `source` (MHR,
2 steps), `scanned` (C-Poly with scanned layers, 2 steps) and `adapted` (`source` adapted as mhr-z to
skillbench_ktv, stopped after 2 of 4 steps). Its `expected.npz` holds what that version computed: every
trained array of these three and of `whole` (`adapted` without the stop), the scores of two predictions, and
the export to PEFT.
"""

import json
import pathlib
import zipfile

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file

from poly_jax import cli, configuration
from poly_jax.training.mesh import Partitioning
from poly_jax.training.restore import restore
from poly_jax.training.saved_step import open_trained
from poly_jax.training.saved_steps import step_folder
from poly_jax.weights.parameter_names import is_adapter_parameter
from poly_jax.weights.tree import flatten

ARCHIVE = pathlib.Path(__file__).with_name("runs.zip")
TASKS = {"source": "skillbench_krl", "scanned": "skillbench_krl", "adapted": "skillbench_ktv"}


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> pathlib.Path:
    root = tmp_path_factory.mktemp("old") / "runs"
    with zipfile.ZipFile(ARCHIVE) as archive:
        archive.extractall(root)
    # An adapted run stores the path of the run whose skills it uses, which was in another folder.
    for file in (root / "adapted" / "config.gin", root / "adapted/checkpoints/2/origin/metadata"):
        file.write_text(file.read_text().replace("/runs/source", str(root / "source")))
    return root


@pytest.fixture(scope="module")
def expected(runs) -> dict[str, np.ndarray]:
    with np.load(runs / "expected.npz") as stored:
        return dict(stored)


def below(arrays: dict[str, np.ndarray], prefix: str) -> dict[str, np.ndarray]:
    return {name.removeprefix(prefix): leaf for name, leaf in arrays.items() if name.startswith(prefix)}


@pytest.mark.parametrize("run", TASKS)
def test_every_trained_array_restores_bit_for_bit(runs, expected, run):
    experiment = configuration.load([configuration.run_config(runs / run)]).experiment()
    restored = restore(experiment, str(runs / run), Partitioning().mesh())
    found = {name: np.asarray(leaf) for name, leaf in flatten(jax.device_get(restored.parameters)).items()}
    own = below(expected, f"{run}/")
    for name, leaf in own.items():
        np.testing.assert_array_equal(found[name], leaf, err_msg=name)
    # An adapted router is used with the skills of its source run.
    skills = below(expected, "source/") if run == "adapted" else {}
    for name, leaf in skills.items():
        if name not in own:
            np.testing.assert_array_equal(found[name], leaf, err_msg=name)
    assert set(filter(is_adapter_parameter, found)) == {*own, *skills}


@pytest.mark.parametrize("run", TASKS)
def test_predictions_and_their_scores_are_the_same(runs, expected, run, tmp_path):
    texts, answers = tmp_path / "in.txt", tmp_path / "out.jsonl"
    texts.write_text("abc fbdaj\nqrt hgca\n")
    words = [
        "infer",
        f"--run={runs / run}",
        f"--task={TASKS[run]}",
        f"--input={texts}",
        f"--output={answers}",
    ]
    assert cli.main(words) == 0
    scores = [json.loads(line)["score"] for line in answers.read_text().splitlines()]
    np.testing.assert_allclose(scores, expected[f"scores/{run}"], rtol=1e-4, atol=1e-6)


def test_an_export_to_peft_is_the_same_bit_for_bit(runs, expected, tmp_path):
    out = tmp_path / "poly"
    assert cli.main(["export", f"--run={runs / 'source'}", "--format=peft_poly", f"--output={out}"]) == 0
    written = load_file(out / "adapter_model.safetensors")
    for name, leaf in below(expected, "peft_poly/").items():
        np.testing.assert_array_equal(written[name], leaf, err_msg=name)


def test_an_adaptation_that_was_stopped_ends_as_if_it_had_not_been_stopped(runs, expected):
    words = ["adapt", f"--run={runs / 'source'}", "--task=skillbench_ktv", "--variant=mhr-z", "--shots=4"]
    words += [f"--output_dir={runs / 'adapted'}", "--gin.adapt.steps=4", "--gin.adapt.save_every=2"]
    words += ["--gin.adapt.batch_size=4", "--gin.adapt.report_every=1"]
    assert cli.main(words) == 0
    step = step_folder(runs / "adapted")
    assert step.name == "4"
    found = {name: tensor.load() for name, tensor in open_trained(step).items()}
    whole = below(expected, "whole/")
    assert set(found) == set(whole)
    # Another processor may round differently.
    for name, leaf in whole.items():
        np.testing.assert_allclose(found[name], leaf, rtol=1e-4, atol=1e-7, err_msg=name)
