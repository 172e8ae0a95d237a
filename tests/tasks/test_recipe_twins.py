"""The tiny twins of the recipes run from data to results: pretraining, zero-shot, few-shot, and its result.

Each runs on a small input that is made here, and on real files where they are.
"""

import json
import pathlib
import shutil

import pytest

from poly_jax import cli
from poly_jax.data.quiet import seqio
from poly_jax.tasks.crossfit import tasks as crossfit
from poly_jax.tasks.super_natural_instructions import tasks as sni
from poly_jax.tasks.super_natural_instructions.online_subset import ONLINE_SUBSET
from poly_jax.tasks.t0_few_shot import tasks as t0_few_shot
from poly_jax.tasks.t0_pretraining import tasks as t0_pretraining

# All runs share a small model, so that programs of the same shapes are compiled once.
SMALL = [
    "--gin.Adapters.sites=('encoder/attention/query',)",
    "--gin.T5Config.num_encoder_layers=1",
    "--gin.T5Config.num_decoder_layers=1",
    "--gin.train.steps=20",
]
pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("own_folder")]


@pytest.fixture(autouse=True)
def _registry(monkeypatch):
    monkeypatch.setattr(seqio.TaskRegistry, "_REGISTRY", dict(seqio.TaskRegistry._REGISTRY))
    monkeypatch.setattr(seqio.MixtureRegistry, "_REGISTRY", dict(seqio.MixtureRegistry._REGISTRY))
    for tasks in (crossfit, sni, t0_few_shot, t0_pretraining):
        monkeypatch.setattr(tasks, "_registered", {})


def lines(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{row if isinstance(row, str) else json.dumps(row)}\n" for row in rows))


def copied(source, target):
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(source, target)


@pytest.fixture
def shared(request, shared_data_or_none):
    """The real files, or None for the small input that a test makes."""
    if request.param == "made":
        return None
    if shared_data_or_none is None:
        pytest.skip("no real data; set POLY_JAX_TEST_DATA to its folder")
    return shared_data_or_none


@pytest.fixture(scope="session")
def shared_data_or_none(request):
    try:
        return request.getfixturevalue("shared_data")
    except pytest.skip.Exception:
        return None


def runs(benchmark, bindings, held_out, adapting=()):
    """Train, evaluate zero-shot, adapt to a held-out task and evaluate; returns both results."""
    recipe = f"--gin_file=recipes/{benchmark}"
    steps = (
        ["train", f"{recipe}/pretrain_tiny.gin", "--output_dir=run", *bindings, *SMALL],
        ["eval", "--run=run", f"{recipe}/zero_shot_tiny.gin", "--output_dir=zero_shot", *adapting],
        ["adapt", "--run=run", f"{recipe}/few_shot_tiny.gin", f"--task={held_out}", "--output_dir=adapted"],
        ["eval", "--run=adapted", "--output_dir=few_shot"],
    )
    for words in (*steps[:2], [*steps[2], *adapting], steps[3]):
        assert cli.main(words) == 0
    trained, adapted = (
        [json.loads(line) for line in (pathlib.Path(run) / "metrics.jsonl").read_text().splitlines()]
        for run in ("run", "adapted")
    )
    assert (trained[-1]["step"], adapted[-1]["step"]) == (20, 20)
    return [
        json.loads((pathlib.Path(name) / "metrics.json").read_text()) for name in ("zero_shot", "few_shot")
    ]


both = pytest.mark.parametrize("shared", ["made", "real"], indirect=True)


@both
def test_super_natural_instructions(shared, tmp_path, task_file):
    folder, train, test = tmp_path / "sni", ["task1146_country_capital", "task1319_x"], ONLINE_SUBSET[15]
    if shared:
        train[1] = "task1319_country_by_barcode_prefix"
        for name in (*train, test):
            copied(shared / "sni" / "tasks" / f"{name}.json", folder / "tasks" / f"{name}.json")
    else:
        for name, size in ((train[0], 6), (train[1], 6), (test, 104)):
            lines(folder / "tasks" / f"{name}.json", [task_file(size)])
    for split, names in (("train", train), ("test", [test]), ("excluded", [])):
        lines(folder / "splits" / "default" / f"{split}_tasks.txt", names)
    bindings = [
        *(f"--gin.SNI='{folder}'", "--gin.VOCABULARY=''", "--gin.T5Config.vocab_size=259"),
        "--gin.super_natural_instructions.register.vocabulary=@vocabularies.byte()",
        *("--gin.T5Config.emb_dim=16", "--gin.Data.batch_size=4", "--gin.Decoding.max_length=8"),
    ]
    name = f"sni_{test}"
    zero_shot, few_shot = runs("sni", bindings, name)
    for results in (zero_shot, few_shot):
        assert results[name]["instances"] == results["overall"]["instances"] == 100
        assert 0 <= results[name]["rougeL"] <= 100
    assert any(group.startswith("category ") for group in zero_shot)


@both
def test_crossfit(shared, tmp_path):
    folder, train, held_out = tmp_path / "crossfit", ["sms_spam", "health_fact"], "glue-qnli"
    parts = {"train": train, "dev": [], "test": [held_out]}
    lines(folder / "splits" / "mine.json", [parts])
    if shared:
        for task in (*train, held_out):
            for path in (shared / "crossfit" / "tsv" / task).glob("*_100_*.tsv"):
                copied(path, folder / "data" / task / path.name)
        # The real test file has 5,463 rows.
        path = next((folder / "data" / held_out).glob("*_test.tsv"))
        lines(path, path.read_text().split("\n")[:40])
    else:
        labels = {"sms_spam": "ham", "health_fact": "true", held_out: "entailment"}
        for task, label in labels.items():
            for kind in ("train", "dev", "test"):
                rows = [f"{kind} {number}\t{label}" for number in range(8)]
                lines(folder / "data" / task / f"{task}_16_100_{kind}.tsv", rows)
    zero_shot, few_shot = runs(
        "crossfit", [f"--gin.CROSSFIT='{folder}'", "--gin.PARTITION='mine'"], "crossfit_glue_qnli"
    )
    for results in (zero_shot, few_shot):
        assert results["crossfit_glue_qnli"]["metric"] == "ACC"
        assert 0 <= results["mean"]["score"] <= 100


TEMPLATE = """
dataset: super_glue
templates:
  u1: !Template
    answer_choices: Yes ||| No
    jinja: '{{premise}} So {{hypothesis}}? ||| {{answer_choices[label]}}'
    metadata: !TemplateMetadata {original_task: true}
    name: so
"""


@both
def test_t0(shared, tmp_path):
    rows, folder = tmp_path / "rows", tmp_path / "t0"
    templates = folder / "promptsource_templates" / "super_glue" / "rte" / "templates.yaml"
    shots, validation = (
        folder / "few_shot" / "rte" / "32_shot" / "42_seed.jsonl",
        folder / "validation" / "rte.jsonl",
    )
    names = ("glue_mrpc_replace", "trec_trec1") if shared is None else ("glue_mrpc_replace", "glue_qqp_quora")
    if shared:
        for name in names:
            copied(shared / "t0" / "p3_rendered" / f"{name}.jsonl", rows / f"{name}.jsonl")
        copied(shared / "t0" / templates.relative_to(folder), templates)
        copied(shared / "t0" / shots.relative_to(folder), shots)
        real = (shared / "t0" / "validation_reconstructed" / "rte.jsonl").read_text().splitlines()
        lines(validation, real[:40])
    else:
        for name in names:
            lines(rows / f"{name}.jsonl", [{"inputs": f"{name} {n}", "targets": "x"} for n in range(6)])
        templates.parent.mkdir(parents=True)
        templates.write_text(TEMPLATE)
        examples = [{"premise": f"p{n}", "hypothesis": f"h{n}", "label": n % 2, "idx": n} for n in range(8)]
        lines(shots, examples)
        lines(validation, examples)
    zero_shot, few_shot = runs("t0", [f"--gin.P3='{rows}'"], "t0_rte", [f"--gin.T0='{folder}'"])
    for results in (zero_shot, few_shot):
        assert 0 <= results["t0_rte"]["accuracy"] <= 100
