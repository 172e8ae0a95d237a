"""Runs of November 2026 restore, resume, predict and export as the version that wrote them did.

`runs.zip` was written by the program at commit 2d791cf, on the embedded benchmark. It holds `source` (MHR,
2 steps), `scanned` (C-Poly with scanned layers, 2 steps), `adapted` (`source` adapted as mhr-z to
skillbench_ktv, stopped after 2 of 4 steps) and `trained` (`source`'s settings with a constant learning rate,
trained on skillbench_krl for 2 steps). The last two have an optimizer state and a position in the data. Its
`expected.npz` holds what that version computed:

* every trained array of the first three, of `whole` (`adapted` without the stop), and of `whole_trained`
  (`trained` after 4 steps without a stop), whose third and fourth batch are `batches`;
* the scores of two predictions;
* the exports of `source`: `peft_poly`, `peft_lora` (of skillbench_krl), `merged` (the kernels into which that
  task is merged), and `digests`, the SHA-256 of every other tensor and JSON file in each format.

The file `model.gin` of an export for t5x binds more settings now, and is not compared.
"""

import hashlib
import json
import pathlib
import shutil
import zipfile

import jax
import numpy as np
import pytest
import tensorstore as ts
from etils import epath
from safetensors.numpy import load_file

from poly_jax import cli, configuration
from poly_jax.data.batches import train_batches
from poly_jax.data.task_table import TaskTable
from poly_jax.training.mesh import Partitioning
from poly_jax.training.positions import restore_position
from poly_jax.training.restore import restore
from poly_jax.training.saved_step import open_trained
from poly_jax.training.saved_steps import step_folder
from poly_jax.training.train import train
from poly_jax.transfer.adapt import adapt
from poly_jax.transfer.few_shot import FewShotBatches, draw_batch
from poly_jax.weights.parameter_names import is_adapter_parameter
from poly_jax.weights.tree import flatten

ARCHIVE = pathlib.Path(__file__).with_name("runs.zip")
TASKS = {"source": "skillbench_krl", "scanned": "skillbench_krl", "adapted": "skillbench_ktv"}
ADAPTING = ("adapt.steps = 4", "adapt.save_every = 2", "adapt.batch_size = 4", "adapt.report_every = 1")


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> pathlib.Path:
    root = tmp_path_factory.mktemp("old") / "runs"
    with zipfile.ZipFile(ARCHIVE) as archive:
        archive.extractall(root)
    # An adapted run stores the path of the run whose skills it uses, which was in another folder.
    for file in (root / "adapted" / "config.gin", root / "adapted/checkpoints/2/origin/metadata"):
        file.write_text(file.read_text().replace("/runs/source", str(root / "source")))
    # That version read all data as streams, and docs/training.md asks for this line to resume such a run.
    config = root / "trained" / "config.gin"
    mixture = "Data.mixture = 'skillbench_krl'\n"
    config.write_text(config.read_text().replace(mixture, f"{mixture}Data.reading = 'streamed'\n"))
    return root


@pytest.fixture(scope="module")
def expected(runs) -> dict[str, np.ndarray]:
    with np.load(runs / "expected.npz") as stored:
        return dict(stored)


def below(arrays: dict[str, np.ndarray], prefix: str) -> dict[str, np.ndarray]:
    return {name.removeprefix(prefix): leaf for name, leaf in arrays.items() if name.startswith(prefix)}


def stored_arrays(folder: pathlib.Path) -> dict[str, np.ndarray]:
    """The arrays of a tree in a checkpoint, by '.'-joined name, read by TensorStore alone."""
    base = f"file://{folder}/"
    keys = ts.KvStore.open({"driver": "ocdbt", "base": base}).result().list().result()
    names = [key.decode().removesuffix("/.zarray") for key in keys if key.endswith(b"/.zarray")]
    stores = {name: {"driver": "ocdbt", "base": base, "path": f"{name}/"} for name in names}
    return {name: zarr_array(store) for name, store in stores.items()}


def zarr_array(kvstore: dict[str, str]) -> np.ndarray:
    return np.asarray(ts.open({"driver": "zarr", "kvstore": kvstore}).result().read().result())


def exported(path: pathlib.Path) -> dict[str, np.ndarray]:
    """The tensors of an exported file or folder, by their names in it."""
    for file in [path] if path.is_file() else path.glob("*.safetensors"):
        return load_file(file)
    arrays = [metadata.parent for metadata in path.rglob(".zarray")]
    return {array.name: zarr_array({"driver": "file", "path": f"{array}/"}) for array in arrays}


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def restored_state(runs: pathlib.Path, run: str, folder: pathlib.Path):
    """The state of a run in `folder` that is resumed, and has no steps to take."""
    if run == "trained":
        loaded = configuration.load([configuration.run_config(folder)])
        return train(**loaded.arguments("train", output_dir=str(folder), steps=2))
    loaded = configuration.load([configuration.run_config(runs / "source")], ADAPTING)
    given = {"run": str(runs / "source"), "task": TASKS[run], "variant": "mhr-z", "shots": 4, "steps": 2}
    return adapt(**loaded.arguments("adapt", output_dir=str(folder), **given))


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


@pytest.mark.parametrize("run", ["adapted", "trained"])
def test_the_state_of_a_stopped_run_restores_bit_for_bit(runs, run, tmp_path):
    folder = tmp_path / run
    shutil.copytree(runs / run, folder)
    state = restored_state(runs, run, folder)
    assert int(state.step) == 2
    for item in ("trained", "optimizer"):
        stored = stored_arrays(runs / run / "checkpoints/2" / item)
        leaves = jax.tree_util.tree_leaves_with_path(jax.device_get(getattr(state, item)))
        found = {jax.tree_util.keystr(path, simple=True, separator="."): leaf for path, leaf in leaves}
        assert set(found) == set(stored)
        for name, leaf in stored.items():
            assert np.asarray(found[name]).dtype == leaf.dtype, name
            np.testing.assert_array_equal(found[name], leaf, err_msg=name)


def test_the_position_of_an_adaptation_restores(runs, tmp_path):
    rows = {"task_ids": np.zeros(4, np.int32), "number": np.arange(4)}
    batches = FewShotBatches(rows, batch_size=3, seed=0)
    restore_position(epath.Path(runs / "adapted"), 2, batches)
    batches.save(tmp_path / "position")
    assert (tmp_path / "position").read_bytes() == (runs / "adapted/data/2-host0").read_bytes()
    np.testing.assert_array_equal(next(batches)["number"], draw_batch(rows, 3, 0, step=2)["number"])


def test_the_position_of_a_training_run_restores_with_the_same_next_batches(runs, expected):
    stream = train_batches(
        "skillbench_krl",
        TaskTable.of("skillbench_krl"),
        sequence_length={"inputs": 12, "targets": 10},
        batch_size=4,
        seed=0,
        reading="streamed",
    )
    restore_position(epath.Path(runs / "trained"), 2, stream)
    for number in (3, 4):
        batch = next(stream)
        whole = below(expected, f"batches/{number}/")
        assert set(batch) == set(whole)
        for name, leaf in whole.items():
            np.testing.assert_array_equal(batch[name], leaf, err_msg=f"{number} {name}")


def test_an_export_to_peft_is_the_same_bit_for_bit(runs, expected, tmp_path):
    out = tmp_path / "poly"
    assert cli.main(["export", f"--run={runs / 'source'}", "--format=peft_poly", f"--output={out}"]) == 0
    written = load_file(out / "adapter_model.safetensors")
    for name, leaf in below(expected, "peft_poly/").items():
        np.testing.assert_array_equal(written[name], leaf, err_msg=name)


@pytest.mark.parametrize("kind", ["backbone", "t5x", "hugging_face", "t5x_adapters", "peft_lora"])
def test_an_export_in_another_format_is_the_same(runs, expected, kind, tmp_path):
    out = tmp_path / ("out.safetensors" if kind == "backbone" else "out")
    task = [] if kind == "t5x_adapters" else ["--task=skillbench_krl"]
    assert cli.main(["export", f"--run={runs / 'source'}", f"--format={kind}", f"--output={out}", *task]) == 0
    found = exported(out)
    for line in expected[f"digests/{kind}"]:
        name, digest = line.split(" ")
        content = found.pop(name).tobytes() if name in found else (out / name).read_bytes()
        assert sha256(content) == digest, name
    # What is left was computed from the skills. Another processor may round differently.
    if kind == "peft_lora":
        assert set(found) == set(below(expected, "peft_lora/"))
        for name, leaf in below(expected, "peft_lora/").items():
            np.testing.assert_allclose(found[name], leaf, rtol=1e-6, atol=1e-9, err_msg=name)
        return
    merged = [] if kind == "t5x_adapters" else list(below(expected, "merged/").items())
    assert len(found) == len(merged)
    for name, leaf in merged:
        close = [
            np.shape(array) == leaf.shape and np.allclose(array, leaf, 1e-6, 1e-8)
            for array in (array.T if kind == "hugging_face" else array for array in found.values())
        ]
        assert sum(close) == 1, name


def test_an_adaptation_that_was_stopped_ends_as_if_it_had_not_been_stopped(runs, expected, tmp_path):
    shutil.copytree(runs / "adapted", tmp_path / "adapted")
    words = ["adapt", f"--run={runs / 'source'}", "--task=skillbench_ktv", "--variant=mhr-z", "--shots=4"]
    words += [
        f"--output_dir={tmp_path / 'adapted'}",
        *(f"--gin.{line.replace(' ', '')}" for line in ADAPTING),
    ]
    assert cli.main(words) == 0
    check_end(tmp_path / "adapted", below(expected, "whole/"))


def test_a_training_run_that_was_stopped_ends_as_if_it_had_not_been_stopped(runs, expected, tmp_path):
    shutil.copytree(runs / "trained", tmp_path / "trained")
    words = ["train", f"--gin_file={tmp_path / 'trained' / 'config.gin'}", "--gin.train.steps=4"]
    assert cli.main([*words, f"--output_dir={tmp_path / 'trained'}"]) == 0
    check_end(tmp_path / "trained", below(expected, "whole_trained/"))


def check_end(run: pathlib.Path, whole: dict[str, np.ndarray]) -> None:
    step = step_folder(run)
    assert step.name == "4"
    found = {name: tensor.load() for name, tensor in open_trained(step).items()}
    assert set(found) == set(whole)
    # Another processor may round differently.
    for name, leaf in whole.items():
        np.testing.assert_allclose(found[name], leaf, rtol=1e-4, atol=1e-7, err_msg=name)
