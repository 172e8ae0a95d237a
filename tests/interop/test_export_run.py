"""Tasks of a run, merged or mixed for other systems, have the same outputs as in the run."""

import json
import pathlib

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file

from poly_jax import cli, configuration
from poly_jax.data.task_table import TaskTable
from poly_jax.model.config import T5Config
from poly_jax.model.transformer import Transformer
from poly_jax.training.backbone import RANDOM, load_backbone
from poly_jax.training.mesh import Partitioning
from poly_jax.training.run_folder import write_run
from poly_jax.training.saved_step import Origin
from poly_jax.weights import single_file
from poly_jax.weights.backbone import read_backbone
from poly_jax.weights.tree import flatten, unflatten

pytestmark = pytest.mark.usefixtures("own_folder")

# The fixture's task 1, whose logits PEFT recorded.
TASK = "delta"


@pytest.fixture(scope="module")
def merged(poly_run, tmp_path_factory):
    """For each format, a folder with the task merged into the backbone."""
    root = tmp_path_factory.mktemp("merged")
    outputs = {"backbone": root / "b.safetensors", "t5x": root / "t5x", "hugging_face": root / "hf"}
    for format, output in outputs.items():
        arguments = [f"--run={poly_run}", f"--output={output}", f"--format={format}", f"--task={TASK}"]
        assert cli.main(["export", *arguments]) == 0
    return outputs


def export(run, format, output="out", *more):
    return cli.main(["export", f"--run={run}", f"--format={format}", f"--output={output}", *more])


def mix(poly_fixture, module, task):
    """Compute A and B of a module for a task by definition: sigmoid, normalise, mix each split, join them."""
    stored = load_file(poly_fixture / "adapter" / "adapter_model.safetensors")
    a, b, z = (
        stored[f"base_model.model.{module}.{name}"].astype(np.float64)
        for name in ("poly_lora_A", "poly_lora_B", "poly_router.module_logits")
    )
    splits, skills, _, rank = a.shape
    weights = 1 / (1 + np.exp(-z[task].reshape(splits, skills)))
    weights /= weights.sum(-1, keepdims=True)
    mixed_a = np.einsum("sk,skir->sir", weights, a).reshape(-1, rank)
    mixed_b = np.einsum("sk,skro->rso", weights, b).reshape(rank, -1)
    return mixed_a, mixed_b, rank


def test_the_merged_t5_has_pefts_logits_of_the_task(poly_fixture, merged):
    expected = np.load(poly_fixture / "fixture.npz")
    model = Transformer(T5Config(**single_file.load(merged["backbone"])[1]))
    inputs = expected["input_ids"] * expected["attention_mask"]
    parameters = read_backbone(merged["backbone"])
    got = jax.jit(model.apply)({"params": parameters}, inputs, expected["decoder_input_ids"])
    np.testing.assert_allclose(got, expected["logits_task_1"], atol=2e-5)


def test_all_formats_hold_the_same_t5(merged):
    ours = flatten(read_backbone(merged["backbone"]))
    for format in ("t5x", "hugging_face"):
        theirs = flatten(read_backbone(merged[format]))
        assert theirs.keys() == ours.keys()
        for name, array in ours.items():
            np.testing.assert_array_equal(theirs[name], array, err_msg=name)


def test_kernels_are_merged_by_definition_and_all_else_equals_the_backbone(poly_fixture, merged):
    got, base = flatten(read_backbone(merged["backbone"])), flatten(read_backbone(poly_fixture / "base"))
    module, path = (
        "decoder.block.1.layer.1.EncDecAttention.k",
        "decoder/layers_1/encoder_decoder_attention/key",
    )
    a, b, rank = mix(poly_fixture, module, task=1)
    np.testing.assert_allclose(got[f"{path}/kernel"], base[f"{path}/kernel"] + a @ b / rank, atol=1e-6)
    for name in ("token_embedder/embedding", "decoder/logits_dense/kernel", "encoder/encoder_norm/scale"):
        np.testing.assert_array_equal(got[name], base[name])


def test_peft_to_poly_jax_to_peft_keeps_every_tensor_and_name(poly_fixture):
    arguments = [f"--from={poly_fixture / 'adapter'}", f"--backbone={poly_fixture / 'base'}", "--output=run"]
    assert cli.main(["import", *arguments]) == 0
    assert export("run", "peft_poly") == 0
    got = load_file("out/adapter_model.safetensors")
    expected = load_file(poly_fixture / "adapter" / "adapter_model.safetensors")
    assert got.keys() == expected.keys()
    for name, array in expected.items():
        assert got[name].dtype == array.dtype
        np.testing.assert_array_equal(got[name], array, err_msg=name)
    config = json.loads(pathlib.Path("out/adapter_config.json").read_text())
    theirs = json.loads((poly_fixture / "adapter" / "adapter_config.json").read_text())
    same = ("peft_type", "poly_type", "r", "n_tasks", "n_skills", "n_splits", "task_type", "modules_to_save")
    assert {key: config[key] for key in same} == {key: theirs[key] for key in same}
    assert sorted(config["target_modules"]) == sorted(theirs["target_modules"])


def test_task_names_are_exported_and_read_back(poly_fixture, poly_run):
    assert export(poly_run, "peft_poly") == 0
    names = ["alpha", "bravo", "charlie", "delta", "echo"]
    assert json.loads(pathlib.Path("out/tasks.json").read_text()) == {"tasks": names}
    assert cli.main(["import", "--from=out", f"--backbone={poly_fixture / 'base'}", "--output=again"]) == 0
    assert export("again", "peft_poly", "out2") == 0
    assert pathlib.Path("out2/adapter_model.safetensors").read_bytes() == (
        pathlib.Path("out/adapter_model.safetensors").read_bytes()
    )
    assert json.loads(pathlib.Path("out2/tasks.json").read_text()) == {"tasks": names}


def test_the_mix_of_one_task_is_a_plain_lora(poly_fixture, poly_run):
    assert export(poly_run, "peft_lora", "out", f"--task={TASK}") == 0
    config = json.loads(pathlib.Path("out/adapter_config.json").read_text())
    assert (config["peft_type"], config["r"], config["lora_alpha"], config["bias"]) == ("LORA", 4, 1, "none")
    stored = load_file("out/adapter_model.safetensors")
    assert len(stored) == 72
    module = "encoder.block.0.layer.1.DenseReluDense.wo"
    a, b, _ = mix(poly_fixture, module, task=1)
    np.testing.assert_allclose(stored[f"base_model.model.{module}.lora_A.weight"], a.T, atol=1e-6)
    np.testing.assert_allclose(stored[f"base_model.model.{module}.lora_B.weight"], b.T, atol=1e-6)


def test_a_plain_lora_is_imported_as_a_run_with_one_task(poly_fixture, poly_run):
    assert export(poly_run, "peft_lora", "out", f"--task={TASK}") == 0
    assert cli.main(["import", "--from=out", f"--backbone={poly_fixture / 'base'}", "--output=lora"]) == 0
    # With only one task, --task is not needed.
    assert export("lora", "peft_lora", "out2") == 0
    assert pathlib.Path("out2/adapter_model.safetensors").read_bytes() == (
        pathlib.Path("out/adapter_model.safetensors").read_bytes()
    )


def test_the_adapter_names_a_hugging_face_backbone(poly_fixture, poly_run):
    assert export(poly_run, "peft_lora", "out", f"--task={TASK}") == 0
    config = json.loads(pathlib.Path("out/adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == str(poly_fixture / "base")


@pytest.mark.parametrize("format", ["t5x", "hugging_face", "peft_lora"])
def test_an_export_of_one_task_needs_the_name_of_a_known_task(poly_run, format, capsys):
    assert export(poly_run, format) == 1
    assert "the run has 5 tasks; say whose adapters are meant with --task" in capsys.readouterr().err
    assert export(poly_run, format, "out", "--task=zulu") == 1
    assert "task 'zulu' is not in the table of 5 tasks" in capsys.readouterr().err
    assert not pathlib.Path("out").exists()


@pytest.mark.parametrize("output", ["checkpoints", "checkpoints/new", "data/new"])
@pytest.mark.parametrize("format", ["t5x", "hugging_face"])
def test_an_export_among_the_run_s_own_files_is_refused(poly_run, output, format, capsys):
    place = f"{poly_run}/{output}"
    arguments = ["export", f"--run={poly_run}", f"--format={format}", f"--output={place}", "--task=0"]
    assert cli.main(arguments) == 1
    assert f"--output={place} is among the files of the training run in" in capsys.readouterr().err


def test_a_format_for_all_tasks_refuses_the_name_of_one(poly_run, capsys):
    assert export(poly_run, "peft_poly", "out", f"--task={TASK}") == 1
    assert "peft_poly holds all tasks" in capsys.readouterr().err


def test_a_backbone_other_than_that_of_the_adapters_is_refused(poly_fixture, poly_run, tmp_path, capsys):
    tree = read_backbone(poly_fixture / "base")
    tree["encoder"]["encoder_norm"]["scale"] = tree["encoder"]["encoder_norm"]["scale"] + 1
    single_file.save("other.safetensors", tree, {})
    other = "--gin.Experiment.backbone='other.safetensors'"
    assert export(poly_run, "t5x", "out", f"--task={TASK}", other) == 1
    assert "other.safetensors is not the backbone that" in capsys.readouterr().err
    # Exporting adapters alone does not need the backbone.
    assert export(poly_run, "peft_lora", "out", f"--task={TASK}", other) == 0


def test_exporting_adapters_alone_does_not_read_the_backbone(poly_run, monkeypatch):
    def fail(*_):
        raise AssertionError

    monkeypatch.setattr("poly_jax.training.open_run.open_backbone", fail)
    assert export(poly_run, "peft_lora", "out", f"--task={TASK}") == 0


def test_scanned_layers_are_exported_as_separate_layers(poly_fixture):
    arguments = [f"--from={poly_fixture / 'adapter'}", f"--backbone={poly_fixture / 'base'}", "--output=run"]
    assert cli.main(["import", *arguments, "--gin.T5Config.scan_layers=True"]) == 0
    assert export("run", "peft_poly") == 0
    got = load_file("out/adapter_model.safetensors")
    expected = load_file(poly_fixture / "adapter" / "adapter_model.safetensors")
    assert got.keys() == expected.keys()
    for name, array in expected.items():
        np.testing.assert_array_equal(got[name], array, err_msg=name)


def test_a_run_on_untrained_weights_is_exported_with_those_weights():
    lines = ["T5Config.vocab_size=9", "T5Config.emb_dim=4", "T5Config.num_heads=2", "T5Config.head_dim=2"]
    lines += ["T5Config.mlp_dim=8", "T5Config.num_encoder_layers=1", "T5Config.num_decoder_layers=1"]
    lines += [
        "Experiment.backbone='random'",
        "Experiment.adapters=@Adapters",
        "Adapters.router=@SharedRouter()",
    ]
    lines += ["Adapters.skill=@LoRA()", "Adapters.sites='encoder/attention/query'"]
    loaded = configuration.load(["runs/multitask.gin"], lines)
    skills = {"lora_a": np.full((1, 1, 4, 1), 2.0, np.float32), "lora_b": np.ones((1, 1, 1, 4), np.float32)}
    name = "encoder/layers_0/attention/query"
    tree = unflatten({f"{name}/skills/{part}": leaf for part, leaf in skills.items()})
    write_run("run", tree, TaskTable(("a",)), Origin(RANDOM, RANDOM), loaded.config)
    assert export("run", "backbone", "b.safetensors", "--task=a") == 0
    mesh = Partitioning().mesh()
    expected = flatten(load_backbone(RANDOM, Transformer(loaded.make(T5Config)), mesh)[0])
    got = flatten(read_backbone("b.safetensors"))
    assert got.keys() == expected.keys()
    for key, leaf in expected.items():
        update = 2.0 if key == f"{name}/kernel" else 0.0
        np.testing.assert_allclose(got[key], leaf + update, atol=1e-6, err_msg=key)
