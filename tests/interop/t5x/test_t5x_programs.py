"""t5x's own train.py, eval.py and infer.py on a mixture of this project, compared with poly-jax."""

import json
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest

REASON = "t5x is not installed (docs/t5x.md says how)"
pytest.importorskip("t5x.models", reason=REASON, exc_type=ImportError)

from poly_jax import cli, configuration  # noqa: E402
from poly_jax.data.task_table import TaskTable  # noqa: E402
from poly_jax.tasks.skillbench.backbone import backbone  # noqa: E402
from poly_jax.weights.backbone import read_backbone  # noqa: E402
from poly_jax.weights.parameter_names import is_adapter_parameter  # noqa: E402
from poly_jax.weights.t5x_checkpoint import open_t5x  # noqa: E402
from poly_jax.weights.tree import flatten  # noqa: E402

pytestmark = pytest.mark.slow

STEPS = 8
FILES = ["recipes/skillbench/experiment.gin", "routers/poly.gin", "trio.gin"]
# Adapters at one site of each kind keep the programs small.
TRIO = """
import trio

Data.mixture = 'trio'
Data.inputs_length = 12
Data.targets_length = 10
Data.batch_size = 8
Adapters.sites = ('encoder/attention/query', 'decoder/mlp/wo')
Decoding.n_beams = 2
"""
MODULE = """
import seqio
import poly_jax.tasks.skillbench.tasks

if 'trio' not in seqio.MixtureRegistry.names():
    names = sorted(t.name for t in seqio.MixtureRegistry.get('skillbench_train').tasks)[:3]
    seqio.MixtureRegistry.add('trio', names[::-1], default_rate=1.0)
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder as users have it: a module that registers a mixture, a gin file, and the backbone for t5x."""
    folder = tmp_path_factory.mktemp("t5x")
    (folder / "trio.py").write_text(MODULE)
    (folder / "trio.gin").write_text(TRIO)
    arguments = [f"--backbone={backbone()}", "--format=t5x", f"--output={folder / 'backbone'}"]
    assert cli.main(["export", *arguments]) == 0
    return folder


def run(place, program, files, **bindings):
    """Run a program of t5x and return what it printed."""
    command = [sys.executable, "-m", f"t5x.{program}", f"--gin_search_paths={configuration.gin_root()},."]
    command += [f"--gin_file={name}" for name in (f"t5x/{program}.gin", *files)]
    command += [f"--gin.{name}={value!r}" for name, value in bindings.items()]
    path = os.pathsep.join([str(place), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        command,
        cwd=place,
        env={**os.environ, "JAX_PLATFORMS": "cpu", "PYTHONPATH": path},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0 or program == "eval", done.stderr[-3000:]
    return done.stderr


@pytest.fixture(scope="module")
def trained(place):
    """The folder of a t5x run that used both kinds of evaluation during training."""
    names = {"train.eval_period": STEPS, "train.eval_steps": 1, "EVALUATOR_NUM_EXAMPLES": 4}
    start = str(place / "backbone" / "checkpoint_1")
    model_dir = str(place / "run")
    run(place, "train", FILES, MODEL_DIR=model_dir, INITIAL_CHECKPOINT_PATH=start, TRAIN_STEPS=STEPS, **names)
    return place / "run"


def ours(place, monkeypatch, command, *arguments):
    """Run a poly-jax command in the user's folder."""
    monkeypatch.chdir(place)
    monkeypatch.syspath_prepend(str(place))
    assert cli.main([command, *arguments]) == 0


def metrics_of(folder) -> dict[str, float]:
    """Read the metrics of each task that seqio's JSON logger wrote for t5x."""
    files = sorted(pathlib.Path(folder).rglob("*-metrics.jsonl"))
    return {
        file.name.removesuffix("-metrics.jsonl"): json.loads(file.read_text())["exact_match"]
        for file in files
    }


def test_training_updates_only_adapters_and_writes_the_task_names_and_settings(trained, place):
    state = {name: tensor.load() for name, tensor in open_t5x(trained / f"checkpoint_{STEPS}").items()}
    start = flatten(read_backbone(place / "backbone"))
    for name, leaf in start.items():
        np.testing.assert_array_equal(state[name], leaf)
    moved = {name for name in state if name.endswith("lora_b") and state[name].any()}
    assert moved == {name for name in state if name.endswith("lora_b")}
    assert all(is_adapter_parameter(name) for name in state.keys() - start.keys())
    table = TaskTable.load(trained / "tasks.json")
    assert list(table.names) == sorted(table.names)
    assert len(table) == 3
    assert (trained / "training_eval" / "trio").is_dir()


def test_a_t5x_checkpoint_has_the_same_metrics_and_predictions_in_t5x_and_poly_jax(
    trained, place, monkeypatch
):
    ours(place, monkeypatch, "import", f"--from={trained}", "--output=from_t5x", "--gin_file=trio.gin")
    ours(place, monkeypatch, "eval", "--run=from_t5x")
    checkpoint = str(trained / f"checkpoint_{STEPS}")
    run(place, "eval", FILES, CHECKPOINT_PATH=checkpoint, EVAL_OUTPUT_DIR=str(place / "eval"))
    folder = place / "from_t5x" / "eval" / "trio-test"
    expected = json.loads((folder / "metrics.json").read_text())
    got = metrics_of(place / "eval")
    assert len(got) == 3
    for task, metric in got.items():
        assert metric == expected[task]["exact_match"]
        theirs = _lines(place / "eval" / "inference_eval" / f"{task}-{STEPS:06d}.jsonl")
        mine = _lines(folder / "predictions" / f"{task}.jsonl")
        assert [line["prediction"] for line in theirs] == [line["prediction"] for line in mine]


def test_a_poly_jax_run_has_the_same_predictions_in_t5xs_infer(trained, place, monkeypatch):
    if not (place / "from_t5x").exists():
        ours(place, monkeypatch, "import", f"--from={trained}", "--output=from_t5x", "--gin_file=trio.gin")
    ours(place, monkeypatch, "export", "--run=from_t5x", "--format=t5x_adapters", "--output=to_t5x")
    task = TaskTable.load(trained / "tasks.json").names[2]
    files = ["to_t5x/model.gin", "trio.gin"]
    folder = place / "infer"
    run(
        place,
        "infer",
        ["recipes/skillbench/experiment.gin", *files],
        CHECKPOINT_PATH=str(place / "to_t5x" / "checkpoint_1"),
        INFER_OUTPUT_DIR=str(folder),
        MIXTURE_OR_TASK_NAME=task,
    )
    predictions = _lines(next(folder.glob(f"{task}-predict.jsonl-*-of-*1")))
    questions = [line["inputs"]["inputs_pretokenized"] for line in predictions]
    (place / "questions.txt").write_text("\n".join(questions) + "\n")
    flags = [f"--task={task}", "--input=questions.txt", "--output=answers.txt"]
    ours(place, monkeypatch, "infer", "--run=from_t5x", *flags)
    answers = (place / "answers.txt").read_text().splitlines()
    assert [line["prediction"] for line in predictions] == answers


def test_a_task_that_the_run_does_not_know_is_reported_by_name(trained, place):
    checkpoint = str(trained / f"checkpoint_{STEPS}")
    settings = {"CHECKPOINT_PATH": checkpoint, "EVAL_OUTPUT_DIR": str(place / "other")}
    said = run(place, "eval", FILES, MIXTURE_OR_TASK_NAME="skillbench_pretrain", **settings)
    assert "UserError: task 'skillbench_pretrain' is not in the table of 3 tasks" in said


def _lines(file):
    return [json.loads(line) for line in file.read_text().splitlines()]
