"""Data sets of T0 are rendered with promptsource's templates, into files that can be trained on."""

import json

import pytest
from etils import epath

from poly_jax.errors import UserError
from poly_jax.tasks.t0_few_shot.templates import Renderer, Template, read_templates
from poly_jax.tasks.t0_pretraining.data_sets import DATA_SETS, p3_name
from poly_jax.tasks.t0_pretraining.folders import find_templates
from poly_jax.tasks.t0_pretraining.raw_examples import json_examples, tfds_examples
from poly_jax.tasks.t0_pretraining.rendering import main, render_data_set

BY_NAME = {data_set.p3_name: data_set for data_set in DATA_SETS}
MRPC = BY_NAME["glue_mrpc"]
TEMPLATES = """
dataset: glue
templates:
  u1: !Template
    answer_choices: no ||| yes
    jinja: '{{sentence1}} Same as {{sentence2}}? ||| {{answer_choices[label]}}'
    metadata: !TemplateMetadata {original_task: true}
    name: same thing
  u2: !Template
    answer_choices: null
    jinja: '{% if label == 1 %}Say again: {{sentence1}} ||| {{sentence2}}{% endif %}'
    metadata: !TemplateMetadata {original_task: false}
    name: again
  u3: !Template
    answer_choices: null
    jinja: '{{["Repeat", "Copy", "Write"] | choice}}: {{sentence1}} ||| {{sentence1}}'
    metadata: !TemplateMetadata {original_task: false}
    name: repeat
"""
EXAMPLES = [{"sentence1": f"a{n}", "sentence2": f"b|||{n}", "label": n % 2, "idx": n} for n in range(20)]


@pytest.fixture
def templates(tmp_path):
    file = tmp_path / "templates" / "glue" / "mrpc" / "templates.yaml"
    file.parent.mkdir(parents=True)
    file.write_text(TEMPLATES)
    return tmp_path / "templates"


def rows(folder, name):
    return [json.loads(line) for line in (folder / f"{name}.jsonl").read_text().splitlines()]


def test_each_template_has_a_file_of_the_examples_that_it_does_not_leave_out(tmp_path, templates):
    counts = render_data_set(MRPC, EXAMPLES, templates, tmp_path / "rows")
    assert counts == {"glue_mrpc_same_thing": 20, "glue_mrpc_again": 10, "glue_mrpc_repeat": 20}
    assert rows(tmp_path / "rows", "glue_mrpc_same_thing")[1] == {
        "inputs": "a1 Same as b|||1?",
        "targets": "yes",
    }
    assert rows(tmp_path / "rows", "glue_mrpc_again")[0] == {"inputs": "Say again: a1", "targets": "b|||1"}
    assert len(list((tmp_path / "rows").iterdir())) == 3


def test_the_files_are_those_that_the_mixture_is_made_of(tmp_path, templates):
    render_data_set(MRPC, EXAMPLES, templates, tmp_path / "rows")
    found = find_templates(epath.Path(tmp_path / "rows"), truncated=True)
    assert list(found) == [MRPC]
    assert {name: len(files["train"]) for name, files in found[MRPC].items()} == {
        "glue_mrpc_again": 10,
        "glue_mrpc_repeat": 20,
        "glue_mrpc_same_thing": 20,
    }


def test_random_choices_depend_on_the_seed_alone(tmp_path, templates):
    drawn = []
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        render_data_set(MRPC, EXAMPLES, templates, tmp_path / name, seed=seed)
        drawn.append([row["inputs"].split(":")[0] for row in rows(tmp_path / name, "glue_mrpc_repeat")])
    assert drawn[0] == drawn[1] != drawn[2]
    assert set(drawn[0]) == {"Repeat", "Copy", "Write"}


def test_rows_are_counted_after_examples_are_left_out_and_the_rest_is_not_read(tmp_path, templates):
    unread = iter(EXAMPLES)
    counts = render_data_set(MRPC, unread, templates, tmp_path / "rows", limit=4)
    assert set(counts.values()) == {4}
    assert [row["inputs"] for row in rows(tmp_path / "rows", "glue_mrpc_again")] == [
        f"Say again: a{n}" for n in (1, 3, 5, 7)
    ]
    assert len(list(unread)) == 20 - 9


def test_an_example_that_does_not_fit_is_named_and_earlier_files_are_kept(tmp_path, templates):
    render_data_set(MRPC, EXAMPLES, templates, tmp_path / "rows", limit=2)
    broken = [EXAMPLES[0], {"sentence1": "x", "label": 0}]
    with pytest.raises(UserError, match=r"example 2 of glue_mrpc .* template 'same thing': .*'sentence2'"):
        render_data_set(MRPC, broken, templates, tmp_path / "rows")
    assert len(rows(tmp_path / "rows", "glue_mrpc_repeat")) == 2
    assert not list((tmp_path / "rows").glob("*.partial"))


def test_a_template_without_any_row_is_an_error_as_its_labels_must_be_wrong(tmp_path, templates):
    with pytest.raises(UserError, match=r"no example of glue_mrpc gives template 'glue_mrpc_again' an input"):
        render_data_set(MRPC, EXAMPLES[:1], templates, tmp_path / "rows")
    assert not list((tmp_path / "rows").iterdir())


def test_the_program_renders_a_jsonl_file_up_to_t_fews_number_of_rows(tmp_path, templates, capsys):
    file = tmp_path / "train.jsonl"
    file.write_text("".join(json.dumps(example) + "\n" for example in EXAMPLES))
    words = ["--data_set=glue_mrpc", f"--templates={templates}", f"--output={tmp_path / 'rows'}"]
    assert main([*words, f"--jsonl={file}"]) == 0
    assert "       20 rows  glue_mrpc_same_thing" in capsys.readouterr().out
    file.write_text('{"sentence1": "a"\n')
    assert main([*words, f"--jsonl={file}"]) == 1
    assert "train.jsonl, line 1 is not valid JSON" in capsys.readouterr().err


def test_tfds_examples_are_plain_values_in_the_order_of_the_file(tmp_path):
    import tensorflow as tf
    import tensorflow_datasets as tfds

    features = tfds.features.FeaturesDict(
        {
            "sentence1": tfds.features.Text(),
            "label": tfds.features.ClassLabel(num_classes=2),
            "answers": tfds.features.Sequence({"text": tfds.features.Text(), "start": tf.int32}),
            "words": tfds.features.Sequence(tfds.features.Text()),
        }
    )
    examples = [
        {
            "sentence1": f"ünï {n}",
            "label": n % 2,
            "answers": {"text": ["x"] * n, "start": list(range(n))},
            "words": ["p", "q"][:n],
        }
        for n in range(3)
    ]
    # Written by hand, because TFDS's own writer needs a package that reading does not need.
    folder = tmp_path / "own" / "small" / "1.0.0"
    folder.mkdir(parents=True)
    with tf.io.TFRecordWriter(str(folder / "own-train.tfrecord-00000-of-00001")) as writer:
        for example in examples:
            writer.write(features.serialize_example(features.encode_example(example)))
    tfds.folder_dataset.write_metadata(data_dir=str(folder), features=features)
    assert list(tfds_examples("own/small", data_dir=str(tmp_path))) == examples
    with pytest.raises(UserError, match=r"TFDS cannot read split 'train' of 'absent' .*`tfds build absent`"):
        list(tfds_examples("absent", data_dir=str(tmp_path)))


def test_a_field_may_be_a_mapping_and_its_separators_are_plain_text():
    text = "{{ x.text[0] }} ||| {{ x['text'] | join(' and ') }}"
    pair = Renderer().render_pair(Template("t", text, None, False), {"x": {"text": ["a|||b", "c"]}}, "0")
    assert pair == ("a|||b", "a|||b and c")


def test_every_published_template_can_be_compiled(shared_data):
    folder = shared_data / "t0" / "promptsource_templates"
    entries = json.loads((shared_data / "t0" / "t0_train_tasks_313.json").read_text())
    renderer, names = Renderer(), set()
    for data_set in DATA_SETS:
        for template in read_templates(
            epath.Path(folder / data_set.name / data_set.subset / "templates.yaml")
        ):
            names.add(p3_name(data_set, template.name))
            for text in (template.text, template.answer_choices or ""):
                renderer._jinja.bounded_template(text)
    assert names == {entry["task_name"] for entry in entries}


def real_rows(shared_data, name):
    return [
        json.loads(line)
        for line in (shared_data / "t0" / "p3_rendered" / f"{name}.jsonl").read_text().splitlines()
    ]


def test_ag_news_is_rendered_as_in_p3(shared_data, tmp_path):
    # The examples are read from the rows of one template; those of all other templates must come out.
    end = " \nWhat label best describes this news article?"
    labels = ["World politics", "Sports", "Business", "Science and technology"]
    examples = [
        {"text": row["inputs"].removesuffix(end), "label": labels.index(row["targets"])}
        for row in real_rows(shared_data, "ag_news_classify")
    ]
    folder = shared_data / "t0" / "promptsource_templates"
    counts = render_data_set(BY_NAME["ag_news"], examples, folder, tmp_path)
    assert set(counts.values()) == {60}
    assert len(counts) == 7
    for name in counts:
        assert rows(tmp_path, name) == real_rows(shared_data, name), name


def test_mrpc_is_rendered_as_in_p3_with_the_examples_that_templates_leave_out(shared_data, tmp_path):
    examples = []
    for row in real_rows(shared_data, "glue_mrpc_replace"):
        _, first, _, second, _ = row["inputs"].split("\n")
        examples.append({"sentence1": first, "sentence2": second, "label": int(row["targets"] == "yes")})
    folder = shared_data / "t0" / "promptsource_templates"
    counts = render_data_set(MRPC, examples, folder, tmp_path)
    assert 0 < counts["glue_mrpc_generate_sentence"] < counts["glue_mrpc_equivalent"] == 60
    for name in counts:
        ours = {row["inputs"]: row["targets"] for row in rows(tmp_path, name)}
        theirs = {row["inputs"]: row["targets"] for row in real_rows(shared_data, name)}
        both = ours.keys() & theirs.keys()
        # Where a template leaves out examples, the 60 rows there are of more and other examples.
        assert len(both) == 60 if "generate" not in name else len(both) > 5
        assert {text: ours[text] for text in both} == {text: theirs[text] for text in both}, name


def test_json_examples_names_a_missing_file(tmp_path):
    with pytest.raises(UserError, match=r"absent cannot be read"):
        list(json_examples(tmp_path / "absent"))
