"""Imported adapters become a run, which has PEFT's outputs and which the programs accept."""

import json
import pathlib

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from poly_jax import cli, configuration
from poly_jax.interop.adapters import read_adapters
from poly_jax.interop.import_adapters import import_adapters
from poly_jax.model.config import T5Config
from poly_jax.routing.fixed import AverageRouter
from poly_jax.training.mesh import Partitioning
from poly_jax.training.restore import restore
from poly_jax.training.saved_step import read_origin, read_table
from poly_jax.training.saved_steps import step_folder
from poly_jax.weights.tree import flatten

pytestmark = pytest.mark.usefixtures("own_folder")


def restored(run, *bindings):
    experiment = configuration.load([configuration.run_config(run)], bindings).experiment()
    return restore(experiment, str(run), Partitioning().mesh())


def logits(run, expected, task_ids):
    found = restored(run)
    apply = jax.jit(found.model.apply)
    inputs = expected["input_ids"] * expected["attention_mask"]
    return apply({"params": found.parameters}, inputs, expected["decoder_input_ids"], task_ids)


def test_the_run_has_pefts_logits_for_the_named_tasks(poly_fixture, poly_run, poly_task_ids):
    expected = np.load(poly_fixture / "fixture.npz")
    assert read_table(step_folder(poly_run)).names == ("alpha", "bravo", "charlie", "delta", "echo")
    got = logits(poly_run, expected, poly_task_ids)
    np.testing.assert_allclose(got, expected["logits"], atol=2e-5)


def test_tasks_without_names_are_numbered(poly_fixture):
    arguments = [f"--from={poly_fixture / 'adapter'}", f"--backbone={poly_fixture / 'base'}", "--output=run"]
    assert cli.main(["import", *arguments]) == 0
    assert read_table(step_folder("run")).names == tuple(f"task_{i}" for i in range(5))


def test_task_names_in_a_file_beside_the_adapter_are_used(poly_fixture, tmp_path):
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    for file in (poly_fixture / "adapter").iterdir():
        (adapter / file.name).write_bytes(file.read_bytes())
    (adapter / "tasks.json").write_text(json.dumps({"tasks": list("abcde")}))
    config = json.loads((adapter / "adapter_config.json").read_text())
    # The adapter itself may name its base model.
    config["base_model_name_or_path"] = str(poly_fixture / "base")
    (adapter / "adapter_config.json").write_text(json.dumps(config))
    assert cli.main(["import", f"--from={adapter}", "--output=run"]) == 0
    assert read_table(step_folder("run")).names == tuple("abcde")
    assert read_origin(step_folder("run")).backbone == str(poly_fixture / "base")


@pytest.mark.parametrize(
    ("named", "message"),
    [(None, "does not say what it adapts"), ("t5-small", "adapts t5-small, which is not a local path")],
)
def test_an_adapter_without_its_backbone_is_refused(poly_fixture, tmp_path, named, message, capsys):
    config = json.loads((poly_fixture / "adapter" / "adapter_config.json").read_text())
    (tmp_path / "adapter").mkdir()
    text = json.dumps(config | {"base_model_name_or_path": named})
    (tmp_path / "adapter" / "adapter_config.json").write_text(text)
    assert cli.main(["import", "--from=adapter", "--output=run"]) == 1
    shown = capsys.readouterr().err
    assert message in shown
    assert "--backbone" in shown


def test_adapters_of_another_model_are_refused_with_both_shapes(poly_fixture, shared_data, capsys):
    backbone = shared_data / "t5x" / "t5x_tiny_v1_1"
    arguments = [f"--from={poly_fixture / 'adapter'}", f"--backbone={backbone}", "--output=run"]
    assert cli.main(["import", *arguments]) == 1
    shown = capsys.readouterr().err
    assert "of another shape" in shown
    assert not pathlib.Path("run").exists()


def test_a_folder_in_use_is_not_overwritten(poly_fixture, poly_run, capsys):
    (pathlib.Path("used")).mkdir()
    (pathlib.Path("used") / "x").write_text("mine")
    arguments = [f"--from={poly_fixture / 'adapter'}", f"--backbone={poly_fixture / 'base'}"]
    assert cli.main(["import", *arguments, "--output=used"]) == 1
    assert "used exists; choose another output" in capsys.readouterr().err


def test_an_imported_run_is_not_overwritten_by_another_import(poly_fixture, poly_run, capsys):
    arguments = [f"--from={poly_fixture / 'adapter'}", f"--backbone={poly_fixture / 'base'}"]
    assert cli.main(["import", *arguments, f"--output={poly_run}"]) == 1
    assert "exists; choose another output" in capsys.readouterr().err


def test_another_kind_of_adapter_is_refused(tmp_path, poly_fixture, capsys):
    (tmp_path / "adapter").mkdir()
    (tmp_path / "adapter" / "adapter_config.json").write_text('{"peft_type": "VERA"}')
    (tmp_path / "adapter" / "adapter_model.safetensors").write_bytes(
        (poly_fixture / "adapter" / "adapter_model.safetensors").read_bytes()
    )
    arguments = ["--from=adapter", f"--backbone={poly_fixture / 'base'}", "--output=run"]
    assert cli.main(["import", *arguments]) == 1
    assert "peft_type is 'VERA'; only LORA, IA3 and POLY are read" in capsys.readouterr().err


def test_a_run_imported_into_scanned_layers_has_the_same_adapters(poly_fixture, poly_run):
    arguments = [f"--from={poly_fixture / 'adapter'}", f"--backbone={poly_fixture / 'base'}"]
    assert cli.main(["import", *arguments, "--output=scanned", "--gin.T5Config.scan_layers=True"]) == 0
    found = flatten(restored("scanned").parameters)
    config = T5Config(vocab_size=128, num_encoder_layers=2, num_decoder_layers=2)
    apart = flatten(read_adapters(str(poly_fixture / "adapter"), config).tree)
    name = "mlp/wo/skills/lora_b"
    np.testing.assert_array_equal(found[f"decoder/layers/{name}"][1], apart[f"decoder/layers_1/{name}"])


def reference_checkpoint(path, with_routers):
    """Write the fixture's tensors under the names of the reference implementation."""
    stored = load_file(path / "adapter" / "adapter_model.safetensors")
    endings = {
        ".poly_lora_A": ".lora_a",
        ".poly_lora_B": ".lora_b",
        ".poly_router.module_logits": ".selector.module_logits",
    }
    tensors = {}
    for name, array in stored.items():
        for theirs, ours in endings.items():
            if name.endswith(theirs) and (with_routers or "logits" not in ours):
                renamed = name.removeprefix("base_model.").removesuffix(theirs) + ours
                tensors[renamed] = array
    return tensors


def test_a_checkpoint_of_the_reference_implementation_becomes_the_same_run(poly_fixture, poly_run):
    save_file(reference_checkpoint(poly_fixture, with_routers=True), "mttl.safetensors")
    arguments = ["--from=mttl.safetensors", f"--backbone={poly_fixture / 'base'}", "--output=run"]
    assert cli.main(["import", *arguments]) == 0
    got = flatten(restored("run").parameters)
    # The tasks of the other run are in alphabetical order.
    expected = flatten(restored(poly_run).parameters)
    assert got.keys() == expected.keys()
    order = [2, 4, 3, 1, 0]
    for name, leaf in expected.items():
        there = np.asarray(got[name])
        np.testing.assert_array_equal(there[order] if "router" in name else there, leaf, err_msg=name)


def test_settings_that_the_reference_implementation_does_not_store_must_be_bound(poly_fixture, capsys):
    np.savez("mttl.npz", **reference_checkpoint(poly_fixture, with_routers=False))
    arguments = ["--from=mttl.npz", f"--backbone={poly_fixture / 'base'}", "--output=run"]
    assert cli.main(["import", *arguments]) == 1
    assert "Adapters.router is not set" in capsys.readouterr().err
    bound = ["--gin.Adapters.router=@AverageRouter()", "--gin.LoRA.alpha=16.0"]
    assert cli.main(["import", *arguments, *bound]) == 1
    assert "does not say how many tasks there are; name them with --tasks" in capsys.readouterr().err
    pathlib.Path("names.txt").write_text("one\ntwo\nthree\n")
    bound.append("--tasks=names.txt")
    assert cli.main(["import", *arguments, *bound]) == 0
    adapters = restored("run").model.adapters
    assert isinstance(adapters.router, AverageRouter)
    assert (adapters.skill.rank, adapters.skill.alpha) == (4, 16.0)


@pytest.fixture(scope="module")
def bytes_task():
    """A seqio task whose texts fit the fixture's vocabulary of 128 ids."""
    from poly_jax.data.quiet import seqio, tf

    class Ascii(seqio.ByteVocabulary):
        """The first 125 bytes, which are all that the texts here use."""

        @property
        def _base_vocab_size(self):
            return 128

    def dataset(split, shuffle_files, seed=None):
        return tf.data.Dataset.from_tensor_slices({"inputs": ["ab", "ba"] * 4, "targets": ["a", "b"] * 4})

    def length(targets, predictions):
        return {"length": float(np.mean([len(prediction) for prediction in predictions]))}

    feature = seqio.Feature(Ascii(), add_eos=True)
    for name in ("alpha", "interop_new"):
        seqio.TaskRegistry.add(
            name,
            source=seqio.FunctionDataSource(
                dataset, ("train", "test"), num_input_examples={"train": 8, "test": 8}
            ),
            output_features={"inputs": feature, "targets": feature},
            preprocessors=[seqio.preprocessors.tokenize, seqio.preprocessors.append_eos],
            metric_fns=[length],
        )


@pytest.mark.slow
def test_the_programs_accept_an_imported_run(poly_run, bytes_task, tmp_path):
    data = ["--gin.Data.mixture='alpha'", "--gin.Data.inputs_length=6", "--gin.Data.targets_length=4"]
    data += ["--gin.Decoding.max_length=4"]
    assert cli.main(["eval", f"--run={poly_run}", f"--output_dir={tmp_path / 'eval'}", *data]) == 0
    assert "alpha" in json.loads((tmp_path / "eval" / "metrics.json").read_text())
    pathlib.Path("in.txt").write_text("ab\nba\n")
    infer = ["--task=echo", "--input=in.txt", "--output=out.txt"]
    assert cli.main(["infer", f"--run={poly_run}", *infer, *data]) == 0
    assert len(pathlib.Path("out.txt").read_text().splitlines()) == 2
    adapt = ["--task=interop_new", "--variant=mhr-z", "--output_dir=adapted", "--gin.adapt.steps=2"]
    adapt += ["--gin.adapt/Optimizer.learning_rate=1e-3", "--gin.adapt.batch_size=2"]
    assert cli.main(["adapt", f"--run={poly_run}", *adapt, *data]) == 0
    assert read_table(step_folder("adapted")).names == ("interop_new",)
    assert read_origin(step_folder("adapted")).adapters == str(step_folder(poly_run))
    # The adapted run holds the router, and the imported run holds the skills.
    assert cli.main(["export", "--run=adapted", "--output=lora", "--format=peft_lora"]) == 0
    source, adapted = flatten(restored(poly_run).parameters), flatten(restored("adapted").parameters)
    weights = 1 / (1 + np.exp(-np.asarray(adapted["encoder/layers_0/attention/query/router/logits"][0])))
    weights /= weights.sum(-1, keepdims=True)
    skills = source["encoder/layers_0/attention/query/skills/lora_a"]
    mixed = np.einsum("hk,hkir->hir", weights, skills).reshape(-1, 4)
    name = "base_model.model.encoder.block.0.layer.0.SelfAttention.q.lora_A.weight"
    np.testing.assert_allclose(load_file("lora/adapter_model.safetensors")[name], mixed.T, atol=1e-5)


def test_where_no_data_is_bound_the_programs_say_what_to_bind(poly_run, capsys):
    assert cli.main(["eval", f"--run={poly_run}"]) == 1
    shown = capsys.readouterr().err
    assert "add --gin.Data.mixture=VALUE" in shown


def test_import_needs_no_data(poly_fixture):
    table = import_adapters(
        str(poly_fixture / "adapter"), "run", configuration.Configuration(), str(poly_fixture / "base")
    )
    assert len(table) == 5
