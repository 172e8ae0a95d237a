"""P3's tasks for rank classification are read from small caches that have P3's layout exactly."""

import json

import numpy as np
import pytest

from poly_jax import configuration
from poly_jax.data import vocabularies
from poly_jax.data.batches import eval_batches
from poly_jax.data.feature_converter import RoutedEncDecFeatureConverter
from poly_jax.data.quiet import seqio, tf
from poly_jax.data.routed import routed
from poly_jax.data.task_table import TaskTable
from poly_jax.errors import UserError
from poly_jax.tasks.t0_score_eval import register, tasks
from poly_jax.tasks.t0_score_eval.templates import EVALUATED

BYTES = vocabularies.byte()
LENGTHS = {"inputs": 24, "targets": 8}
RTE = "super_glue_rte_must_be_true_score_eval"
FEATURES = {
    "idx": {"dtype": "int32", "shape": [2]},
    "inputs": {"dtype": "int32", "shape": [None]},
    "inputs_pretokenized": {"dtype": "string", "shape": []},
    "is_correct": {"dtype": "bool", "shape": []},
    "targets": {"dtype": "int32", "shape": [None]},
    "targets_pretokenized": {"dtype": "string", "shape": []},
    "weight": {"dtype": "float32", "shape": []},
}


@pytest.fixture(autouse=True)
def _registry(monkeypatch):
    monkeypatch.setattr(seqio.TaskRegistry, "_REGISTRY", dict(seqio.TaskRegistry._REGISTRY))
    monkeypatch.setattr(seqio.MixtureRegistry, "_REGISTRY", dict(seqio.MixtureRegistry._REGISTRY))
    monkeypatch.setattr(tasks, "_registered", {})


def record(example, choice, is_correct, inputs, targets, weight=1.0):
    """A row as seqio writes it: inputs have no end of sequence, and truth values are whole numbers."""
    values = {
        "idx": [example, choice],
        "inputs": BYTES.encode(inputs),
        "inputs_pretokenized": inputs,
        "is_correct": [int(is_correct)],
        "targets": [*BYTES.encode(targets), 1],
        "targets_pretokenized": targets,
        "weight": [weight],
    }

    def feature(value):
        if isinstance(value, str):
            return tf.train.Feature(bytes_list=tf.train.BytesList(value=[value.encode()]))
        if isinstance(value[0], float):
            return tf.train.Feature(float_list=tf.train.FloatList(value=value))
        return tf.train.Feature(int64_list=tf.train.Int64List(value=value))

    features = {name: feature(value) for name, value in values.items()}
    return tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString()


def write(root, template, *shards, split="validation", features=FEATURES):
    folder = root / "data" / template
    folder.mkdir(parents=True, exist_ok=True)
    info = {"features": features, "num_shards": len(shards), "seqio_version": "0.0.6"}
    (folder / f"info.{split}.json").write_text(json.dumps(info))
    (folder / f"stats.{split}.json").write_text(json.dumps({"examples": sum(map(len, shards))}))
    for number, shard in enumerate(shards):
        path = folder / f"{split}.tfrecord-{number:05d}-of-{len(shards):05d}"
        with tf.io.TFRecordWriter(str(path)) as writer:
            for row in shard:
                writer.write(row)
    (folder / "COMPLETED").write_text("")


def two_examples(text):
    """Two examples with the choices Yes and No. Yes is right for the first, No for the second."""
    return [
        record(example, choice, example == choice, f"{text} {example}", answer)
        for example in (0, 1)
        for choice, answer in enumerate(("Yes", "No"))
    ]


@pytest.fixture
def folder(tmp_path):
    """Two templates of RTE, in two shards and in mixed order; other tasks of P3 are beside them."""
    first = two_examples("must")
    write(tmp_path, RTE, [first[3], first[0]], [first[1], first[2]])
    write(tmp_path, RTE, two_examples("train"), split="train")
    write(tmp_path, "super_glue_rte_can_we_infer_score_eval", two_examples("infer"))
    write(tmp_path, "super_glue_rte_can_we_infer", two_examples("plain"))
    write(tmp_path, "anli_must_be_true_r2_score_eval", two_examples("anli"))
    write(tmp_path, "glue_mrpc_equivalent_score_eval", two_examples("mrpc"))
    write(tmp_path, "hellaswag_Topic_of_the_context_score_eval", two_examples("not the data set's own task"))
    write(tmp_path, "super_glue_boolq_exam_score_eval", two_examples("neither held out nor trained on"))
    return tmp_path


def rows(task, split="validation"):
    dataset = seqio.TaskRegistry.get(task).get_dataset(LENGTHS, split=split, shuffle=False)
    return list(dataset.as_numpy_iterator())


def test_a_data_set_is_a_task_with_all_of_its_templates(folder):
    register(folder, BYTES)
    assert TaskTable.of("t0_p3_held_out").names == ("t0_p3_anli_r2", "t0_p3_rte")
    assert TaskTable.of("t0_p3_training").names == ("t0_p3_glue_mrpc",)
    found = rows("t0_p3_rte")
    assert [(row["template"].decode(), row["inputs_pretokenized"].decode()) for row in found] == [
        ("super_glue_rte_can_we_infer", "infer 0"),
        ("super_glue_rte_can_we_infer", "infer 1"),
        ("super_glue_rte_must_be_true", "must 0"),
        ("super_glue_rte_must_be_true", "must 1"),
    ]
    assert list(seqio.TaskRegistry.get("t0_p3_rte").splits) == ["validation"]


def test_the_choices_of_an_example_are_gathered_from_all_shards_in_their_order(folder):
    register(folder, BYTES)
    first, second = rows("t0_p3_rte")[2:]
    yes, no = [*BYTES.encode("Yes"), 1], [*BYTES.encode("No"), 1]
    for row in (first, second):
        assert row["choices"].tolist() == [[*yes, *[0] * 4], [*no, *[0] * 5]]
    assert (first["label"], second["label"]) == (0, 1)
    assert (first["example_id"], second["example_id"]) == (0, 1)
    assert (first["targets"].tolist(), second["targets"].tolist()) == (yes, no)
    batches = eval_batches(
        "t0_p3_rte",
        TaskTable.of("t0_p3_rte"),
        split="validation",
        sequence_length=LENGTHS,
        batch_size=4,
        choices=True,
    )
    assert next(batches)["labels"].tolist() == [0, 1, 0, 1]


def test_seqio_s_own_reader_sees_the_same_rows(folder, monkeypatch):
    monkeypatch.setattr(seqio.utils, "_GLOBAL_CACHE_DIRECTORIES", [str(folder / "data")])
    seqio.TaskRegistry.add(
        RTE,
        source=seqio.FunctionDataSource(lambda split, shuffle_files: None, splits=("validation",)),
        preprocessors=[seqio.CacheDatasetPlaceholder()],
        output_features={name: seqio.Feature(BYTES, add_eos=True) for name in LENGTHS},
    )
    theirs = seqio.TaskRegistry.get(RTE).get_dataset(
        LENGTHS, split="validation", use_cached=True, shuffle=False
    )
    register(folder, BYTES, end_inputs=False)
    ours = {int(row["example_id"]): row for row in rows("t0_p3_rte")[2:]}
    count = 0
    for row in theirs.as_numpy_iterator():
        example, choice = row["idx"]
        assert ours[example]["inputs"].tolist() == row["inputs"].tolist()
        tokens = ours[example]["choices"][choice]
        assert tokens[tokens > 0].tolist() == row["targets"].tolist()
        assert ours[example]["correct"][choice] == bool(row["is_correct"])
        assert ours[example]["weight"] == row["weight"]
        count += 1
    assert count == 4


def test_inputs_end_where_the_model_was_trained_so_and_choices_always_end(folder):
    register(folder, BYTES)
    assert rows("t0_p3_rte")[0]["inputs"].tolist() == [*BYTES.encode("infer 0"), 1]


def evaluated(name, scores):
    """The metrics of a task for scores of its choices, through seqio's Evaluator."""
    evaluator = seqio.Evaluator(
        routed(name, TaskTable.of(name)).name,
        RoutedEncDecFeatureConverter(choices=True),
        eval_split="validation",
        sequence_length=LENGTHS,
    )
    metrics, _ = evaluator.evaluate(
        compute_metrics=True,
        model_fns={seqio.metrics.ModelOutputType.SCORE: lambda dataset: list(enumerate(scores))},
    )
    return metrics.result()[name]


def test_accuracy_is_the_mean_over_templates_and_t0_reports_the_median_and_the_quartiles(folder):
    register(folder, BYTES)
    # The first template is right for both of its examples, the second for one.
    assert evaluated("t0_p3_rte", [[-1.0, -2.0], [-2.0, -1.0], [-1.0, -2.0], [-1.0, -2.0]]) == {
        "accuracy": 75.0,
        "median_accuracy": 75.0,
        "interquartile_range": 25.0,
    }


def test_scores_are_compared_as_they_are_and_not_by_length(folder):
    register(folder, BYTES)
    register(folder, BYTES, length_norm=1.0, prefix="normalised")
    # Yes has 4 tokens with its end and No 3: by token, Yes is better.
    scores = [[-4.0, -3.5]] * 4
    assert evaluated("t0_p3_rte", scores)["accuracy"] == 50.0
    assert evaluated("normalised_rte", scores)["accuracy"] == 50.0
    assert evaluated("t0_p3_glue_mrpc", [[-4.0, -3.5], [-4.0, -3.5]])["accuracy"] == 50.0
    assert evaluated("t0_p3_glue_mrpc", [[-4.0, -3.5], [-9.0, -3.5]])["accuracy"] == 50.0
    assert evaluated("normalised_glue_mrpc", [[-4.0, -3.5], [-9.0, -3.5]])["accuracy"] == 100.0


def test_weights_several_right_choices_and_none_count_as_in_t5s_metric(tmp_path):
    # t5.evaluation.metrics.rank_classification at e081111 gives 62.5 for these targets and scores.
    shown = [
        ([True, False, False], 2.0, [-1.0, -2.0, -3.0]),  # right
        ([False, True, True], 1.0, [-3.0, -2.0, -1.0]),  # right, as one of two
        ([False, False, False], 3.0, [-1.0, -2.0, -3.0]),  # never right
        ([False, True], 2.0, [-2.0, -1.0]),  # right, of two choices
    ]
    name = "super_glue_copa_best_option_score_eval"
    shard = [
        record(example, choice, right, f"question {example}", f"c{choice}", weight)
        for example, (correct, weight, _) in enumerate(shown)
        for choice, right in enumerate(correct)
    ]
    write(tmp_path, name, shard)
    register(tmp_path, BYTES)
    scores = [[*values, *[-np.inf] * (3 - len(values))] for _, _, values in shown]
    assert evaluated("t0_p3_copa", scores)["accuracy"] == 62.5


@pytest.mark.parametrize(
    ("shard", "message"),
    [
        ([record(0, 1, True, "a", "b")], "example 0 has the choices 1, not each number from 0 once"),
        ([record(0, 0, True, "a", "b")] * 2, "example 0 has the choices 0, 0, not each number"),
        ([record(7, 0, True, "a", "b"), record(7, 1, True, "c", "d")], "example 7 has choices of several in"),
        ([record(0, 0, True, "a", " ")], "record 1 has empty targets"),
        ([b"\xff\xff"], "record 1 is no tf.train.Example"),
        ([tf.train.Example().SerializeToString()], r"record 1 has no 2 numbers 'idx'"),
    ],
)
def test_a_broken_row_is_named_with_its_file(tmp_path, shard, message):
    write(tmp_path, RTE, shard)
    register(tmp_path, BYTES)
    with pytest.raises(UserError, match=message) as raised:
        rows("t0_p3_rte")
    assert RTE in str(raised.value)


def test_a_cache_without_the_features_of_rank_classification_is_refused(tmp_path):
    features = {name: FEATURES[name] for name in FEATURES if name != "is_correct"}
    write(tmp_path, RTE, two_examples("x"), features=features)
    with pytest.raises(UserError, match=r"info\.validation\.json: features has no 'is_correct'"):
        register(tmp_path, BYTES)


def test_a_folder_without_such_tasks_is_refused_by_name(tmp_path):
    with pytest.raises(UserError, match=r"no template of T0's held-out tasks .*info\.validation\.json"):
        register(tmp_path, BYTES)


def test_it_can_be_registered_from_gin_and_twice(folder):
    bindings = [
        f"t0_score_eval.register.folder = '{folder}'",
        "t0_score_eval.register.vocabulary = @vocabularies.byte()",
    ]
    for _ in range(2):
        configuration.load([], bindings).make("t0_score_eval.register")
    with pytest.raises(UserError, match=r"'t0_p3' is registered with length_norm 0.0, and cannot .* 1.0"):
        register(str(folder), vocabularies.byte(), length_norm=1.0)


def test_the_evaluated_templates_are_the_original_ones_of_promptsource(shared_data):
    import re

    published = json.loads((shared_data / "t0" / "t0_eval_tasks_11.json").read_text())
    for name, entry in published.items():
        data_set, templates = EVALUATED[name.replace("-", "_")]
        wanted = [re.sub(r"[^A-Za-z0-9_.]+", "_", each) for each in entry["original_task_templates"]]
        suffix = f"_{name[-2:]}" if name.startswith("anli") else ""
        missing = {f"{each}{suffix}" for each in wanted} - set(templates)
        assert not missing
        # T-Few and MHR use only eight of COPA's templates.
        assert len(templates) == (12 if name == "copa" else len(wanted))
        assert data_set.startswith(entry["hf_dataset"])
