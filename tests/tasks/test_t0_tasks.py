"""T0's held-out tasks as seqio tasks, from small folders and from T-Few's own files."""

import json

import numpy as np
import pytest

from poly_jax import configuration
from poly_jax.data import vocabularies
from poly_jax.data.batches import eval_batches, train_batches
from poly_jax.data.quiet import seqio
from poly_jax.data.task_table import TaskTable
from poly_jax.errors import UserError
from poly_jax.tasks.t0_few_shot import register, tasks

BYTES = vocabularies.byte()
LENGTHS = {"inputs": 40, "targets": 6}

TEMPLATES = """
dataset: super_glue
templates:
  u1: !Template
    answer_choices: Yes ||| No
    jinja: '{{premise}} So {{hypothesis}}? ||| {{answer_choices[label]}}'
    metadata: !TemplateMetadata {original_task: true}
    name: so
  u2: !Template
    answer_choices: Always ||| Never
    jinja: 'Is {{hypothesis}} if {{premise}} ||| {{answer_choices[label]}}'
    metadata: !TemplateMetadata {original_task: true}
    name: is
  u3: !Template
    answer_choices: null
    jinja: '{{premise}} ||| {{hypothesis}}'
    metadata: !TemplateMetadata {original_task: false}
    name: other
"""


@pytest.fixture(autouse=True)
def _registry(monkeypatch):
    monkeypatch.setattr(seqio.TaskRegistry, "_REGISTRY", dict(seqio.TaskRegistry._REGISTRY))
    monkeypatch.setattr(seqio.MixtureRegistry, "_REGISTRY", dict(seqio.MixtureRegistry._REGISTRY))
    monkeypatch.setattr(tasks, "_registered", {})


def lines(count, **fields):
    rows = [
        {"premise": f"p{n}", "hypothesis": f"h{n}", "label": n % 2, "idx": n, **fields} for n in range(count)
    ]
    return "".join(json.dumps(row) + "\n" for row in rows)


@pytest.fixture
def folder(tmp_path):
    """RTE with two templates, 3 few-shot examples for each of seeds 42 and 0, and 5 validation examples."""
    for name, text in {
        "promptsource_templates/super_glue/rte/templates.yaml": TEMPLATES,
        "few_shot/rte/3_shot/42_seed.jsonl": lines(3),
        "few_shot/rte/3_shot/0_seed.jsonl": lines(3, premise="q"),
        "validation/rte.jsonl": lines(5),
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


def rows(split, task="t0_rte", lengths=LENGTHS):
    dataset = seqio.TaskRegistry.get(task).get_dataset(lengths, split=split, shuffle=False)
    return list(dataset.as_numpy_iterator())


def test_training_examples_are_shown_by_every_template_with_their_choices(folder):
    register(folder, BYTES)
    got = rows("train")
    assert [row["inputs_pretokenized"].decode() for row in got] == [
        text for n in range(3) for text in (f"Is h{n} if p{n}", f"p{n} So h{n}?")
    ]
    assert [row["example_id"] for row in got] == [0, 0, 1, 1, 2, 2]
    assert [row["label"] for row in got] == [0, 0, 1, 1, 0, 0]
    assert [row["targets_pretokenized"] for row in got[:4]] == [b"Always", b"Yes", b"Never", b"No"]
    # The inputs are cut to six tokens, of which the last is the end of sequence.
    never = [*BYTES.encode("Never"), 1]
    assert got[0]["choices"].tolist() == [[*BYTES.encode("Alway"), 1], never]
    assert got[1]["choices"].tolist() == [[*BYTES.encode("Yes"), 1, 0, 0], [*BYTES.encode("No"), 1, 0, 0, 0]]
    assert got[2]["targets"].tolist() == never


def test_every_seed_has_a_split_and_train_is_that_of_the_configured_seed(folder):
    register(folder, BYTES)
    assert list(seqio.TaskRegistry.get("t0_rte").splits) == ["train", "train_0", "train_42", "validation"]
    assert [row["inputs"].tolist() for row in rows("train")] == [
        row["inputs"].tolist() for row in rows("train_42")
    ]
    register(folder, BYTES, seed=0, prefix="other")
    assert b"q So" in rows("train", "other_rte")[1]["inputs_pretokenized"]


def test_in_evaluation_an_example_is_shown_once_or_by_every_template(folder):
    register(folder, BYTES)
    once = rows("validation")
    assert [row["example_id"] for row in once] == list(range(5))
    assert {row["template"] for row in once} == {b"is", b"so"}
    assert [row["template"] for row in rows("validation")] == [row["template"] for row in once]
    register(folder, BYTES, evaluation_templates="all", prefix="whole")
    assert [row["template"] for row in rows("validation", "whole_rte")] == [b"is", b"so"] * 5


def test_batches_contain_the_choices_where_they_are_asked_for(folder):
    register(folder, BYTES)
    settings = {"table": TaskTable.of("t0_rte"), "sequence_length": LENGTHS, "batch_size": 4}
    batch = next(train_batches("t0_rte", seed=0, choices=True, **settings))
    assert batch["choices"].shape == (4, 2, 6)
    right = batch["choices"][np.arange(4), batch["labels"]]
    np.testing.assert_array_equal(right, batch["decoder_target_tokens"])
    plain = next(eval_batches("t0_rte", split="validation", **settings))
    assert not {"choices", "labels", "example_ids"} & set(plain)


def test_registering_again_does_nothing_and_with_other_settings_is_refused(folder):
    register(folder, BYTES)
    before = seqio.TaskRegistry.get("t0_rte")
    register(str(folder), vocabularies.byte())
    assert seqio.TaskRegistry.get("t0_rte") is before
    with pytest.raises(
        UserError, match=r"'t0' is registered with length_norm 1\.0, and cannot be registered again with 0\.0"
    ):
        register(folder, BYTES, length_norm=0.0)


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        (
            "few_shot/rte/3_shot/42_seed.jsonl",
            '{"label": 0}\n{"label"',
            r"42_seed\.jsonl, line 2 is not valid JSON",
        ),
        (
            "few_shot/rte/3_shot/42_seed.jsonl",
            '{"premise": "p"}\n',
            r"42_seed\.jsonl, line 1 is not an object with",
        ),
        ("few_shot/rte/3_shot/42_seed.jsonl", "", r"42_seed\.jsonl has no example"),
        (
            "few_shot/rte/3_shot/42_seed.jsonl",
            '{"label": 0}\n',
            "line 1 cannot be shown by template 'is': .*'hypothesis'",
        ),
        ("few_shot/rte/3_shot/42_seed.jsonl", lines(1, label=2), "cannot be shown by template 'is'"),
        (
            "promptsource_templates/super_glue/rte/templates.yaml",
            TEMPLATES.replace("||| {{answer_choices[label]}}", "||| {{answer_choices[label]}} then"),
            r"target 'Always then' is not choice 0 of \('Always', 'Never'\)",
        ),
        (
            "promptsource_templates/super_glue/rte/templates.yaml",
            TEMPLATES.replace("true", "false"),
            r"templates\.yaml has no template for the data set's original task",
        ),
    ],
)
def test_a_broken_file_is_named_when_its_task_is_used(folder, file, content, message):
    (folder / file).write_text(content)
    register(folder, BYTES)
    with pytest.raises(UserError, match=message) as raised:
        rows("train")
    assert "\n" not in str(raised.value)


def test_an_empty_folder_is_reported_by_name(tmp_path):
    with pytest.raises(UserError, match=r"no task has a file at .*few_shot/<task>/<shots>_shot"):
        register(tmp_path, BYTES)


def test_where_a_folder_has_two_numbers_of_shots_one_must_be_chosen(folder):
    (folder / "few_shot/rte/2_shot").mkdir()
    (folder / "few_shot/rte/2_shot/42_seed.jsonl").write_text(lines(2))
    with pytest.raises(UserError, match=r"numbers of shots: 2, 3; t0_few_shot\.register\.shots does not say"):
        register(folder, BYTES)
    with pytest.raises(UserError, match=r"shots asks for 4"):
        register(folder, BYTES, shots={"rte": 4})
    register(folder, BYTES, shots={"rte": 2})
    assert len(rows("train")) == 4


def test_t0s_tasks_can_be_registered_from_gin(folder):
    loaded = configuration.load(
        [],
        [
            f"t0_few_shot.register.folder = '{folder}'",
            "t0_few_shot.register.vocabulary = @vocabularies.byte()",
            "t0_few_shot.register.prefix = 'bound'",
        ],
    )
    loaded.make("t0_few_shot.register")
    assert TaskTable.of("bound_few_shot").names == ("bound_rte",)


# Numbers of few-shot examples, templates, evaluation examples (none of HellaSwag are available), and choices.
REAL = {
    "cb": (32, 15, 56, 3),
    "copa": (32, 8, 100, 2),
    "h-swag": (20, 4, None, 4),
    "rte": (32, 10, 277, 2),
    "winogrande": (50, 5, 1267, 2),
    "wsc": (32, 10, 78, 2),
}


def test_t_fews_files_give_the_published_numbers(shared_data):
    register(shared_data / "t0", vocabularies.sentencepiece(shared_data / "t5_vocab" / "spiece.model"))
    assert set(TaskTable.of("t0_few_shot").names) == {tasks.task_name(name) for name in REAL}
    for name, (shots, templates, evaluated, choices) in REAL.items():
        task = seqio.TaskRegistry.get(tasks.task_name(name))
        assert {"train_0", "train_1", "train_32", "train_42", "train_1024"} <= set(task.splits)
        for seed in (42, 1024, 0):
            assert task.num_input_examples(f"train_{seed}") == shots * templates
        assert ("validation" in task.splits) == (evaluated is not None)
        if evaluated is not None:
            assert task.num_input_examples("validation") == evaluated
        (row,) = task.source.get_dataset("train").take(1).as_numpy_iterator()
        assert row["choices"].shape == (choices,)


@pytest.mark.slow
def test_a_real_example_is_rendered_and_encoded_as_in_t_few(shared_data):
    t5 = vocabularies.sentencepiece(shared_data / "t5_vocab" / "spiece.model")
    register(shared_data / "t0", t5)
    row = rows("train_42", "t0_copa", {"inputs": 256, "targets": 16})[3]
    assert row["template"] == b"choose"
    assert row["inputs_pretokenized"].decode() == (
        "The parents forbade their children from watching the movie.   because... \nChoose between:\n"
        "- The movie was rated R.\n- The movie was animated."
    )
    expected = ["The movie was rated R.", "The movie was animated."]
    assert [[token for token in choice if token] for choice in row["choices"].tolist()] == [
        [*t5.encode(text), 1] for text in expected
    ]
    assert row["targets"].tolist() == [*t5.encode(expected[0]), 1]
