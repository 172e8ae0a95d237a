"""Every benchmark's reader counts and names its broken rows, and leaves out a share of them where bound."""

import functools
import json

import pytest
from etils import epath

from poly_jax.data import vocabularies
from poly_jax.data.quiet import seqio
from poly_jax.errors import UserError
from poly_jax.tasks import crossfit, from_files, super_natural_instructions, t0_few_shot, t0_pretraining

BYTES = vocabularies.byte()
TEMPLATES = """
templates:
  u1: !Template
    answer_choices: Yes ||| No
    jinja: '{{premise}}? ||| {{answer_choices[label]}}'
    metadata: !TemplateMetadata {original_task: true}
    name: so
"""


@pytest.fixture(autouse=True)
def _registry(monkeypatch):
    monkeypatch.setattr(seqio.TaskRegistry, "_REGISTRY", dict(seqio.TaskRegistry._REGISTRY))
    monkeypatch.setattr(seqio.MixtureRegistry, "_REGISTRY", dict(seqio.MixtureRegistry._REGISTRY))
    for benchmark in (crossfit, from_files, super_natural_instructions, t0_few_shot, t0_pretraining):
        monkeypatch.setattr(benchmark.tasks, "_registered", {})


def write(path, *lines):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"".join((line if isinstance(line, bytes) else line.encode()) + b"\n" for line in lines))


def crossfit_folder(folder):
    write(folder / "splits" / "made.json", json.dumps({"train": ["swag"], "dev": [], "test": []}))
    good = "Which? (A) x (B) y\tx"
    broken = ["no tab", "a\t", b"caf\xe9\tx", "Which? (A) x (B) y\tz"]
    write(folder / "data" / "swag" / "swag_4_13_train.tsv", good, *broken, *[good] * 4)
    return (
        functools.partial(crossfit.register, partition="made"),
        "crossfit_swag",
        [2, 3, 4, 5],
        "swag_4_13_train.tsv",
    )


def instructions_folder(folder):
    good = {"input": "x", "output": ["y"]}
    broken = ["text", {"input": "x"}, {"input": "x", "output": [" "]}, {"input": 3, "output": ["y"]}]
    content = {"Definition": ["Do."], "Instances": [good, *broken, *[good] * 4]}
    write(folder / "tasks" / "t.json", json.dumps(content))
    for part in ("train", "test"):
        write(folder / "splits" / "default" / f"{part}_tasks.txt", "t" if part == "train" else "")
    return super_natural_instructions.register, "sni_t", [2, 3, 4, 5], "t.json"


def held_out_folder(folder):
    good = json.dumps({"premise": "p", "label": 0})
    broken = ["{", json.dumps({"label": 0}), json.dumps({"premise": "p", "label": 2}), b'{"premise": "\xff"}']
    path = folder / "few_shot" / "rte" / "9_shot" / "42_seed.jsonl"
    write(path, good, *broken, *[good] * 4)
    write(folder / "promptsource_templates" / "super_glue" / "rte" / "templates.yaml", TEMPLATES)
    return t0_few_shot.register, "t0_rte", [2, 3, 4, 5], "42_seed.jsonl"


def training_folder(folder):
    good = json.dumps({"inputs": "x", "targets": "y"})
    broken = [
        "{",
        json.dumps({"inputs": "x"}),
        json.dumps({"inputs": "x", "targets": " "}),
        b'{"inputs": "\xff"}',
    ]
    write(folder / "trec_trec1.jsonl", good, *broken, *[good] * 4)
    return t0_pretraining.register, "t0_trec_trec1", [2, 3, 4, 5], "trec_trec1.jsonl"


def own_folder(folder):
    good = json.dumps({"input": "x", "output": "y"})
    broken = [
        "[1]",
        json.dumps({"input": "x"}),
        json.dumps({"input": "x", "output": ""}),
        b'{"input": "\xff"}',
    ]
    write(folder / "t.jsonl", good, *broken, *[good] * 4)
    return from_files.register, "mine_t", [2, 3, 4, 5], "t.jsonl"


FOLDERS = [crossfit_folder, instructions_folder, held_out_folder, training_folder, own_folder]


def read(task):
    source = seqio.TaskRegistry.get(task).source
    return source, len(list(source.get_dataset("train", shuffle=False)))


@pytest.mark.parametrize("make", FOLDERS)
def test_broken_rows_up_to_the_bound_share_are_left_out_counted_and_named(make, tmp_path, capsys):
    register, task, lines, file = make(tmp_path)
    register(str(tmp_path), BYTES, max_broken_share=0.45)
    source, count = read(task)
    assert count == 9 - len(lines) == source.num_input_examples("train")
    broken = source.broken_rows("train")
    assert [row.line for row in broken] == lines
    assert {epath.Path(row.file).name for row in broken} == {file}
    assert all(row.reason and file not in row.reason for row in broken)
    assert f"left out {len(lines)} of 9 rows" in capsys.readouterr().err


@pytest.mark.parametrize("make", FOLDERS)
def test_more_broken_rows_than_the_bound_share_are_fatal_in_one_line(make, tmp_path):
    register, task, lines, file = make(tmp_path)
    register(str(tmp_path), BYTES, max_broken_share=0.3)
    with pytest.raises(
        UserError, match=rf"^{len(lines)} of 9 rows are broken \(max_broken_share 0\.3\)"
    ) as error:
        read(task)
    assert file in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("make", [make for make in FOLDERS if make is not training_folder])
def test_any_broken_row_is_fatal_where_no_share_is_bound(make, tmp_path):
    register, task, lines, file = make(tmp_path)
    register(str(tmp_path), BYTES)
    with pytest.raises(UserError, match=rf"^{len(lines)} of 9 rows are broken .*{file}"):
        read(task)


@pytest.mark.parametrize("make", FOLDERS)
def test_a_share_that_is_none_is_refused_when_tasks_are_registered(make, tmp_path):
    register, *_ = make(tmp_path)
    with pytest.raises(UserError, match="max_broken_share is 1; give a share"):
        register(str(tmp_path), BYTES, max_broken_share=1.0)
