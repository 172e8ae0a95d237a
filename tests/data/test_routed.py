"""Tests of the view that adds task ids to a user's own tasks."""

import collections
import itertools
import json

import numpy as np
import pytest

from poly_jax.data.feature_converter import RoutedEncDecFeatureConverter
from poly_jax.data.quiet import seqio, tf
from poly_jax.data.routed import routed
from poly_jax.data.task_table import TaskTable
from poly_jax.errors import UserError

LENGTHS = {"inputs": 16, "targets": 16}


def examples(provider, count, **options):
    dataset = provider.get_dataset(LENGTHS, num_epochs=None, **options)
    return list(itertools.islice(dataset.as_numpy_iterator(), count))


def test_every_example_has_the_id_of_its_task(plain_mixture, decode):
    table = TaskTable.of(plain_mixture)
    rows = examples(routed(plain_mixture, table), 60, split="train", seed=1)
    assert {row["task_ids"].shape for row in rows} == {(1,)}
    assert {row["task_ids"].dtype for row in rows} == {np.dtype(np.int32)}
    names = [table.name(row["task_ids"][0]) for row in rows]
    assert names == [decode(row["inputs"]).split()[0] for row in rows]
    assert set(names) == {"ant", "cat", "owl"}


def test_ids_come_from_the_given_table(plain_mixture, plain_task):
    table = TaskTable(("aardvark", "ant", "bee", "cat", "owl"))
    rows = examples(routed(plain_mixture, table), 60, split="train", seed=1)
    assert {int(row["task_ids"][0]) for row in rows} == {1, 3, 4}


def test_apart_from_the_ids_the_stream_is_the_original(plain_task, numbered):
    def read(split, shuffle_files, seed=None):
        return numbered("any", 9)

    for name in ("first", "second"):
        plain_task(name, source=seqio.FunctionDataSource(read, splits=("train",)))
    seqio.MixtureRegistry.add("both", [("first", 3.0), ("second", 1.0)])
    original = examples(seqio.MixtureRegistry.get("both"), 40, split="train", seed=7)
    view = examples(routed("both", TaskTable.of("both")), 40, split="train", seed=7)
    for before, after in zip(original, view, strict=True):
        np.testing.assert_array_equal(before["inputs"], after["inputs"])
        np.testing.assert_array_equal(before["targets"], after["targets"])


def test_rates_of_nested_mixtures_are_kept(plain_mixture, plain_task):
    plain_task("bee")
    seqio.MixtureRegistry.add(
        "zoo", [("animals", 4.0), ("bee", lambda task: task.num_input_examples("train") or 6)]
    )
    original = seqio.MixtureRegistry.get("zoo")
    view = routed("zoo", TaskTable.of("zoo"))
    assert [task.name for task in view.tasks] == [task.name for task in original.tasks]
    # The mixture animals has rate 4, split 2 : 5 : 1 over ant, cat and owl.
    assert [view.get_rate(task) for task in view.tasks] == pytest.approx([1.0, 6.0, 2.5, 0.5])


def test_rates_decide_how_often_a_task_is_drawn(plain_mixture):
    table = TaskTable.of(plain_mixture)
    rows = examples(routed(plain_mixture, table), 2000, split="train", seed=3)
    counts = collections.Counter(table.name(row["task_ids"][0]) for row in rows)
    # The tolerance is five standard deviations of a binomial distribution.
    for name, rate in (("owl", 1 / 8), ("ant", 2 / 8), ("cat", 5 / 8)):
        assert counts[name] / 2000 == pytest.approx(rate, abs=5 * (rate * (1 - rate) / 2000) ** 0.5)


def test_a_single_task_is_treated_as_a_mixture_of_one(plain_task):
    plain_task("owl", 3)
    view = routed("owl", TaskTable(("ant", "owl")))
    assert [int(row["task_ids"][0]) for row in examples(view, 4, split="test", shuffle=False)] == [1] * 4


def test_the_view_is_registered_once_per_table(plain_mixture):
    own, other = TaskTable.of(plain_mixture), TaskTable(("ant", "bee", "cat", "owl"))
    view = routed(plain_mixture, own)
    assert view.name == "animals@routed"
    assert seqio.get_mixture_or_task("animals@routed") is view
    assert routed(plain_mixture, TaskTable(own.names)) is view
    assert routed(view.name, own) is view
    assert routed(plain_mixture, other).name != view.name
    assert routed(plain_mixture, other) is routed(plain_mixture, other)


def test_a_mixture_that_is_registered_again_gets_a_new_view(plain_mixture):
    table = TaskTable.of(plain_mixture)
    before = routed(plain_mixture, table)
    seqio.MixtureRegistry.remove(plain_mixture)
    seqio.MixtureRegistry.add(plain_mixture, [("owl", 1.0)])
    after = routed(plain_mixture, TaskTable.of(plain_mixture))
    assert after is not before
    assert [task.name for task in after.tasks] == ["owl"]


def test_a_task_without_an_id_is_reported_by_name(plain_mixture):
    with pytest.raises(UserError, match=r"task 'owl' is not in the table of 2 tasks"):
        routed(plain_mixture, TaskTable(("ant", "cat")))


def test_a_task_that_already_has_a_feature_task_ids_is_refused(registry):
    feature = seqio.Feature(seqio.ByteVocabulary())
    source = seqio.FunctionDataSource(lambda split, shuffle_files: None, splits=("train",))
    seqio.TaskRegistry.add("taken", source=source, output_features={"task_ids": feature})
    with pytest.raises(UserError, match=r"'taken' already has a feature 'task_ids'"):
        routed("taken", TaskTable(("taken",)))


def test_a_source_without_a_seed_gives_the_same_stream_for_the_same_seed(plain_task):
    plain_task("owl")
    view = routed("owl", TaskTable(("owl",)))
    first, again, other = (
        [row["inputs"].tolist() for row in examples(view, 30, split="train", seed=seed)] for seed in (5, 5, 6)
    )
    assert first == again
    assert first != other


def test_shards_of_a_task_smaller_than_their_number_share_its_examples(plain_task, numbered, decode):
    def read(split, shuffle_files):
        return numbered("few", 3)

    plain_task("few", source=seqio.FunctionDataSource(read, ("train",), num_input_examples={"train": 3}))
    view = routed("few", TaskTable(("few",)))
    rows = [
        examples(view, 3, split="train", shuffle=False, seed=0, shard_info=seqio.ShardInfo(shard, 4))
        for shard in range(4)
    ]
    # Of twelve examples of the repeated stream, each of the three is drawn four times.
    counts = collections.Counter(decode(row["inputs"]) for shard in rows for row in shard)
    assert counts == {"few in 00": 4, "few in 01": 4, "few in 02": 4}


def test_the_offline_cache_of_the_original_is_read(plain_task, decode, tmp_path):
    plain_task("stored", 3, preprocessors=[seqio.CacheDatasetPlaceholder(), seqio.preprocessors.append_eos])
    folder = tmp_path / "stored"
    folder.mkdir()
    features = {name: {"shape": [None], "dtype": "int32"} for name in ("inputs", "targets")}
    info = {"num_shards": 1, "features": features, "seqio_version": seqio.__version__}
    (folder / "info.train.json").write_text(json.dumps(info))
    (folder / "stats.train.json").write_text(json.dumps({"examples": 1}))
    (folder / "COMPLETED").write_text("")
    ids = seqio.ByteVocabulary().encode("cached")
    record = seqio.dict_to_tfexample({name: np.array(ids, np.int32) for name in features})
    with tf.io.TFRecordWriter(str(folder / "train.tfrecord-00000-of-00001")) as writer:
        writer.write(record.SerializeToString())
    before = seqio.get_global_cache_dirs()
    seqio.set_global_cache_dirs([str(tmp_path)])
    try:
        view = routed("stored", TaskTable(("other", "stored")))
        (row,) = examples(view, 1, split="train", use_cached=True, seed=2)
    finally:
        seqio.set_global_cache_dirs(before)
    assert decode(row["inputs"]) == "cached"
    assert row["task_ids"].tolist() == [1]


def test_seqios_evaluator_scores_the_view_with_the_tasks_own_metric(plain_task):
    def accuracy(targets, predictions):
        return {"accuracy": float(np.mean([a == b for a, b in zip(targets, predictions, strict=True)]))}

    def number(text, example=None, is_target=False):
        return text[-2:]

    for name, size in (("ant", 3), ("owl", 4)):
        plain_task(name, size, metric_fns=[accuracy], postprocess_fn=number)
    seqio.MixtureRegistry.add("pair", ["ant", "owl"], default_rate=1.0)
    view = routed("pair", TaskTable(("ant", "bee", "owl")))
    evaluator = seqio.Evaluator(view.name, RoutedEncDecFeatureConverter(), eval_split="test")
    seen = {}

    def predict(dataset):
        rows = list(dataset.as_numpy_iterator())
        seen[len(rows)] = {int(row["task_ids"]) for _, row in rows}
        # Make the first prediction of each task wrong.
        return [(int(place), row["decoder_target_tokens"] * int(place > 0)) for place, row in rows]

    metrics, _ = evaluator.evaluate(compute_metrics=True, predict_fn=predict)
    assert metrics.result() == {
        "ant": {"accuracy": pytest.approx(2 / 3)},
        "owl": {"accuracy": pytest.approx(3 / 4)},
    }
    assert seen == {3: {0}, 4: {2}}
