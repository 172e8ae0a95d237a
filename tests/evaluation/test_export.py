"""The backbone of a run that trained everything is exported bit for bit, to be frozen in later runs."""

import dataclasses
import pathlib

import numpy as np
import pytest

from poly_jax import cli, configuration
from poly_jax.model.config import T5Config
from poly_jax.training.train import train
from poly_jax.weights import single_file
from poly_jax.weights.backbone import read_backbone
from poly_jax.weights.tree import flatten

pytestmark = pytest.mark.usefixtures("own_folder")


@pytest.fixture(scope="module")
def everything(tmp_path_factory, tasks):
    """A run that trained backbone and adapters with scanned layers: folder, last state and T5Config."""
    root = tmp_path_factory.mktemp("export")
    (root / "run.gin").write_text(tasks.config)
    bindings = [
        "train.trainable='all'",
        "train.steps=1",
        "T5Config.scan_layers=True",
        "T5Config.num_encoder_layers=2",
        "Adapters.sites=('encoder/attention/query',)",
    ]
    loaded = configuration.load([str(root / "run.gin")], bindings)
    state = train(**loaded.arguments("train", output_dir=str(root / "run")))
    return str(root / "run"), flatten(state.trained), loaded.make(T5Config)


def test_an_exported_backbone_is_the_trained_one_without_adapters_in_separate_layers(everything):
    folder, trained, config = everything
    assert cli.main(["export", f"--run={folder}", "--output=b.safetensors"]) == 0
    got = flatten(read_backbone("b.safetensors"))
    layers = {"encoder": 2, "decoder": 1}
    expected = {}
    for name, leaf in trained.items():
        if {"skills", "router"} & set(name.split("/")):
            continue
        stack, *rest = name.split("/")
        if rest[0] == "layers":
            for layer in range(layers[stack]):
                expected["/".join((stack, f"layers_{layer}", *rest[1:]))] = np.asarray(leaf)[layer]
        else:
            expected[name] = np.asarray(leaf)
    assert got.keys() == expected.keys()
    for name, leaf in expected.items():
        assert got[name].dtype == np.float32
        np.testing.assert_array_equal(got[name], leaf, err_msg=name)
    fields = single_file.load("b.safetensors")[1]
    assert T5Config(**fields) == config
    assert fields.keys() == {field.name for field in dataclasses.fields(T5Config)}


def test_exporting_the_backbone_of_a_run_that_froze_it_is_refused_with_the_alternatives(trained, capsys):
    assert cli.main(["export", f"--run={trained.folder}", "--output=b.safetensors"]) == 1
    shown = capsys.readouterr().err
    assert shown.count("\n") == 1
    assert "trained adapters and left its backbone" in shown
    assert "train.trainable 'all'" in shown
    assert not pathlib.Path("b.safetensors").exists()


def test_a_file_of_another_kind_is_refused(everything, capsys):
    assert cli.main(["export", f"--run={everything[0]}", "--output=b.npz"]) == 1
    assert "--output=b.npz must end in .safetensors" in capsys.readouterr().err
