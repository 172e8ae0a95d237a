"""T0's training templates as seqio tasks and mixtures, from small folders and from real rows."""

import collections
import itertools
import json

import numpy as np
import pytest

from poly_jax import configuration
from poly_jax.data import vocabularies
from poly_jax.data.batches import train_batches
from poly_jax.data.quiet import seqio, tf
from poly_jax.data.task_table import TaskTable
from poly_jax.errors import UserError
from poly_jax.tasks.t0_pretraining import register, tasks
from poly_jax.tasks.t0_pretraining.data_sets import DATA_SETS

BYTES = vocabularies.byte()
LENGTHS = {"inputs": 24, "targets": 8}
ROWS = {
    "glue_mrpc_same_thing": 3,
    "glue_mrpc_replace": 5,
    "trec_trec1": 4,
    "super_glue_rte_must_be_true": 6,
    "trec_trec1_score_eval": 9,
}


@pytest.fixture(autouse=True)
def _registry(monkeypatch):
    monkeypatch.setattr(seqio.TaskRegistry, "_REGISTRY", dict(seqio.TaskRegistry._REGISTRY))
    monkeypatch.setattr(seqio.MixtureRegistry, "_REGISTRY", dict(seqio.MixtureRegistry._REGISTRY))
    monkeypatch.setattr(tasks, "_registered", {})


@pytest.fixture
def rendered(tmp_path):
    """JSONL files of two data sets of T0 and of a held-out one; the row 'name n' has the target 'n'."""
    for name, count in ROWS.items():
        rows = [{"inputs": f"{name[-5:]} {n}", "targets": str(n)} for n in range(count)]
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "README.md").write_text("")
    return tmp_path


@pytest.fixture
def published(tmp_path):
    """The same rows as P3 publishes them, in two shards, with a validation row."""

    def write(path, rows):
        with tf.io.TFRecordWriter(str(path)) as writer:
            for inputs, targets in rows:
                features = {}
                for name, text, end in (("inputs", inputs, []), ("targets", targets, [1])):
                    tokens = tf.train.Int64List(value=[*BYTES.encode(text), *end])
                    texts = tf.train.BytesList(value=[text.encode()])
                    features[name] = tf.train.Feature(int64_list=tokens)
                    features[f"{name}_pretokenized"] = tf.train.Feature(bytes_list=texts)
                writer.write(
                    tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString()
                )

    for name, count in ROWS.items():
        folder = tmp_path / "data" / name
        folder.mkdir(parents=True)
        rows = [(f"{name[-5:]} {n}", str(n)) for n in range(count)]
        features = {
            "inputs": {"dtype": "int32", "shape": [None]},
            "inputs_pretokenized": {"dtype": "string", "shape": []},
            "targets": {"dtype": "int32", "shape": [None]},
            "targets_pretokenized": {"dtype": "string", "shape": []},
        }
        for split, shards in (("train", (rows[:2], rows[2:])), ("validation", (rows[:1],))):
            info = {"features": features, "num_shards": len(shards)}
            (folder / f"info.{split}.json").write_text(json.dumps(info))
            stats = {"examples": sum(map(len, shards))}
            (folder / f"stats.{split}.json").write_text(json.dumps(stats))
            for number, shard in enumerate(shards):
                write(folder / f"{split}.tfrecord-{number:05d}-of-{len(shards):05d}", shard)
        (folder / "COMPLETED").write_text("")
    return tmp_path


def texts(task, split="train", **options):
    options = {"shuffle": False, **options}
    dataset = seqio.TaskRegistry.get(task).get_dataset(LENGTHS, split=split, **options)
    return [row["inputs_pretokenized"].decode() for row in dataset.as_numpy_iterator()]


def rates(mixture="t0_train"):
    mixture = seqio.MixtureRegistry.get(mixture)
    return {task.name: mixture.get_rate(task) for task in mixture.tasks}


def test_each_template_of_a_training_data_set_is_a_task(rendered, capsys):
    register(rendered, BYTES)
    names = ("t0_glue_mrpc_replace", "t0_glue_mrpc_same_thing", "t0_trec_trec1")
    assert TaskTable.of("t0_train").names == names
    assert texts("t0_trec_trec1") == ["trec1 0", "trec1 1", "trec1 2", "trec1 3"]
    assert "3 templates of 2 data sets have rows; T0 trains on 313 templates of 38" in capsys.readouterr().err


def test_p3_as_published_gives_the_same_tasks_and_rows_in_the_order_of_its_shards(published):
    register(published, BYTES)
    assert TaskTable.of("t0_train").names == (
        "t0_glue_mrpc_replace",
        "t0_glue_mrpc_same_thing",
        "t0_trec_trec1",
    )
    assert texts("t0_trec_trec1") == ["trec1 0", "trec1 1", "trec1 2", "trec1 3"]
    assert texts("t0_trec_trec1", "validation") == ["trec1 0"]
    register(published / "data", BYTES, prefix="inside")
    assert texts("inside_trec_trec1") == texts("t0_trec_trec1")


def test_seqio_reads_the_same_rows_and_tokens_from_its_own_cache(published, monkeypatch):
    monkeypatch.setattr(seqio.utils, "_GLOBAL_CACHE_DIRECTORIES", [str(published / "data")])
    seqio.TaskRegistry.add(
        "trec_trec1",
        source=seqio.FunctionDataSource(lambda split, shuffle_files: None, splits=("train", "validation")),
        preprocessors=[seqio.CacheDatasetPlaceholder()],
        output_features={name: seqio.Feature(BYTES, add_eos=True) for name in LENGTHS},
    )
    register(published, BYTES, end_inputs=False)
    theirs, ours = (
        seqio.TaskRegistry.get(name)
        .get_dataset(LENGTHS, split="train", shuffle=False, use_cached=cached)
        .as_numpy_iterator()
        for name, cached in (("trec_trec1", True), ("t0_trec_trec1", False))
    )
    for their_row, our_row in zip(theirs, ours, strict=True):
        for name in ("inputs", "targets"):
            assert our_row[name].tolist() == their_row[name].tolist()
            assert our_row[f"{name}_pretokenized"] == their_row[f"{name}_pretokenized"]


def test_where_a_data_set_is_a_task_it_has_the_rows_of_all_its_templates(rendered):
    register(rendered, BYTES, task_identity="data_set")
    assert TaskTable.of("t0_train").names == ("t0_glue_mrpc", "t0_trec")
    assert texts("t0_glue_mrpc") == [f"place {n}" for n in range(5)] + [f"thing {n}" for n in range(3)]
    assert rates() == {"t0_glue_mrpc": 8.0, "t0_trec": 4.0}
    rows = seqio.TaskRegistry.get("t0_glue_mrpc").get_dataset(LENGTHS, split="train", shuffle=False)
    assert [row["template"] for row in rows.as_numpy_iterator()] == (
        [b"glue_mrpc_replace"] * 5 + [b"glue_mrpc_same_thing"] * 3
    )


def test_all_tasks_share_their_preprocessors(rendered):
    register(rendered, BYTES)
    mixture = seqio.MixtureRegistry.get("t0_train")
    assert len({tuple(map(id, task.preprocessors)) for task in mixture.tasks}) == 1


def test_t_few_draws_all_kept_rows_alike_and_t_zero_draws_by_the_size_of_the_data_set(rendered):
    register(rendered, BYTES)
    assert rates() == {"t0_glue_mrpc_replace": 5.0, "t0_glue_mrpc_same_thing": 3.0, "t0_trec_trec1": 4.0}
    register(rendered, BYTES, mixing="t_zero", prefix="zero")
    assert rates("zero_train") == {
        "zero_glue_mrpc_replace": 3668.0,
        "zero_glue_mrpc_same_thing": 3668.0,
        "zero_trec_trec1": 5452.0,
    }
    register(rendered, BYTES, mixing="t_zero", task_identity="data_set", prefix="sets")
    assert rates("sets_train") == {"sets_glue_mrpc": 7336.0, "sets_trec": 5452.0}


def test_t_few_keeps_the_first_rows_of_a_template_and_t_zero_keeps_all(published, monkeypatch):
    # A limit that leaves seven templates of MRPC two rows each, and trec's eighteen none of their size.
    monkeypatch.setattr("poly_jax.tasks.t0_pretraining.data_sets.LIMIT", 2 * 7)
    (published / "data" / "trec_trec1").rename(published / "data" / "elsewhere")
    register(published, BYTES)
    assert texts("t0_glue_mrpc_replace") == ["place 0", "place 1"]
    assert set(texts("t0_glue_mrpc_replace", shuffle=True, seed=0)) == {"place 0", "place 1"}
    assert texts("t0_glue_mrpc_replace", "validation") == ["place 0"]
    assert rates() == {"t0_glue_mrpc_replace": 2.0, "t0_glue_mrpc_same_thing": 2.0}
    register(published, BYTES, mixing="t_zero", prefix="zero")
    assert len(texts("zero_glue_mrpc_replace")) == 5


def test_inputs_end_as_in_t_few_or_as_in_p3_and_targets_always_end(rendered):
    register(rendered, BYTES)
    register(rendered, BYTES, end_inputs=False, prefix="bare")
    for name, end in (("t0_trec_trec1", [1]), ("bare_trec_trec1", [])):
        task = seqio.TaskRegistry.get(name)
        row = next(task.get_dataset(LENGTHS, split="train", shuffle=False).as_numpy_iterator())
        assert row["inputs"].tolist() == [*BYTES.encode("trec1 0"), *end]
        assert row["targets"].tolist() == [*BYTES.encode("0"), 1]
        cut = next(
            task.get_dataset({"inputs": 4, "targets": 4}, split="train", shuffle=False).as_numpy_iterator()
        )
        assert cut["inputs"].tolist() == [*BYTES.encode("trec1")[: 4 - len(end)], *end]


@pytest.mark.parametrize("task_identity", ["template", "data_set"])
def test_rows_are_shuffled_by_seed_over_all_of_a_task_and_none_is_lost(tmp_path, task_identity):
    for name in ("quail_a", "quail_b"):
        rows = [{"inputs": f"{name} {n}", "targets": "x"} for n in range(100)]
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    register(tmp_path, BYTES, task_identity=task_identity)
    name = "t0_quail" if task_identity == "data_set" else "t0_quail_a"
    in_order = texts(name)
    once, again, other = (texts(name, shuffle=True, seed=seed) for seed in (0, 0, 1))
    assert once == again != other
    assert sorted(once) == sorted(other) == sorted(in_order)
    # The first rows come from everywhere in the files: their mean place is that of a random sample.
    places = [in_order.index(text) for text in once[:50]]
    size = len(in_order)
    assert abs(np.mean(places) - size / 2) < 5 * size / np.sqrt(12 * 50)
    shards = [
        texts(name, shuffle=True, seed=0, shard_info=seqio.ShardInfo(index=index, num_shards=3))
        for index in range(3)
    ]
    assert sorted(itertools.chain(*shards)) == sorted(in_order)


@pytest.mark.parametrize("reading", ["indexed", "streamed"])
def test_a_saved_position_continues_with_the_same_batches(rendered, tmp_path, reading):
    register(rendered, BYTES)

    def stream():
        return train_batches(
            "t0_train",
            TaskTable.of("t0_train"),
            sequence_length=LENGTHS,
            batch_size=3,
            seed=5,
            reading=reading,
        )

    first = stream()
    for _ in range(4):
        next(first)
    first.save(tmp_path / "position")
    if reading == "streamed":
        assert json.loads((tmp_path / "position.json").read_text())["iterator"] is True
    expected = [next(first)["encoder_input_tokens"].tolist() for _ in range(6)]
    restored = stream()
    restored.restore(tmp_path / "position")
    assert [next(restored)["encoder_input_tokens"].tolist() for _ in range(6)] == expected


@pytest.mark.parametrize("reading", ["indexed", "streamed"])
def test_a_broken_row_stops_training_with_one_line_that_names_it(rendered, reading):
    with (rendered / "trec_trec1.jsonl").open("a") as file:
        file.write('{"inputs": "x", "targets": ""}\n')
    register(rendered, BYTES)
    settings = {"sequence_length": LENGTHS, "batch_size": 4, "seed": 0, "reading": reading}
    message = r"^\S*trec_trec1\.jsonl, line 5 has empty targets; fetch the file again"
    with pytest.raises(UserError, match=message) as raised:
        list(itertools.islice(train_batches("t0_train", TaskTable.of("t0_train"), **settings), 40))
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", r"info\.train\.json is not valid JSON"),
        ('{"features": {}}', r"info\.train\.json: features has no 'inputs_pretokenized'"),
        (
            '{"features": {"inputs_pretokenized": {"dtype": "int32"}}}',
            r"info\.train\.json: feature 'inputs_pretokenized' is not of dtype 'string'",
        ),
    ],
)
def test_a_broken_description_of_a_split_is_named(published, content, message):
    (published / "data" / "trec_trec1" / "info.train.json").write_text(content)
    with pytest.raises(UserError, match=message):
        register(published, BYTES)


def test_a_missing_shard_is_noticed_at_once(published):
    (published / "data" / "trec_trec1" / "train.tfrecord-00001-of-00002").unlink()
    with pytest.raises(UserError, match=r"trec_trec1/info\.train\.json: num_shards is 2, and .* has 1 file "):
        register(published, BYTES)


def test_a_template_in_both_layouts_is_refused(published):
    (published / "data" / "trec_trec1.jsonl").write_text('{"inputs": "a", "targets": "b"}\n')
    with pytest.raises(UserError, match=r"data has both trec_trec1/ and trec_trec1\.jsonl; take one of them"):
        register(published, BYTES)


def test_an_empty_folder_is_reported_by_name(tmp_path):
    with pytest.raises(UserError, match=r"no template of T0's training data sets at .*info\.train\.json"):
        register(tmp_path / "absent", BYTES)


@pytest.mark.parametrize("setting", [{"task_identity": "subset"}, {"mixing": "equal"}])
def test_an_unknown_setting_is_refused_by_name(rendered, setting):
    (name,) = setting
    with pytest.raises(UserError, match=rf"t0_pretraining\.register\.{name} is '.*'; use '"):
        register(rendered, BYTES, **setting)


def test_registering_again_does_nothing_and_with_other_settings_is_refused(rendered):
    register(rendered, BYTES)
    before = seqio.TaskRegistry.get("t0_trec_trec1")
    register(str(rendered), vocabularies.byte())
    assert seqio.TaskRegistry.get("t0_trec_trec1") is before
    with pytest.raises(UserError, match=r"'t0' is registered with mixing t_few, and cannot .* with t_zero"):
        register(rendered, BYTES, mixing="t_zero")


def test_t0s_training_tasks_can_be_registered_from_gin(rendered):
    loaded = configuration.load(
        [],
        [
            f"t0_pretraining.register.folder = '{rendered}'",
            "t0_pretraining.register.vocabulary = @vocabularies.byte()",
            "t0_pretraining.register.task_identity = 'data_set'",
        ],
    )
    loaded.make("t0_pretraining.register")
    assert TaskTable.of("t0_train").names == ("t0_glue_mrpc", "t0_trec")


def test_real_rows_give_the_templates_that_have_a_file_at_rates_of_their_numbers(shared_data):
    register(shared_data / "t0" / "p3_rendered", BYTES)
    entries = json.loads((shared_data / "t0" / "p3_rendered_manifest.json").read_text())
    manifest = [entry for entry in entries if entry["in_t0_313"]]
    assert rates() == {f"t0_{entry['task_name']}": float(entry["rows"]) for entry in manifest}
    register(shared_data / "t0" / "p3_rendered", BYTES, task_identity="data_set", prefix="sets")
    counts = collections.Counter()
    for entry in manifest:
        (data_set,) = [each for each in DATA_SETS if entry["task_name"].startswith(f"{each.p3_name}_")]
        counts[f"sets_{data_set.p3_name}"] += entry["rows"]
    assert rates("sets_train") == counts


def test_real_rows_have_t5s_tokens(shared_data):
    t5 = vocabularies.sentencepiece(shared_data / "t5_vocab" / "spiece.model")
    register(shared_data / "t0" / "p3_rendered", t5)
    task = seqio.TaskRegistry.get("t0_ag_news_classify")
    row = next(task.get_dataset(None, split="train", shuffle=False).as_numpy_iterator())
    assert row["targets"].tolist() == [*t5.encode("Business"), 1]
    assert row["inputs"].tolist() == [*t5.encode(row["inputs_pretokenized"].decode()), 1]
    assert row["inputs_pretokenized"].decode().endswith("What label best describes this news article?")
