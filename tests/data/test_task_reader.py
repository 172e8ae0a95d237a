"""Tests of reading all examples of many tasks at once."""

import json

import numpy as np
import pytest

from poly_jax.data import task_reader
from poly_jax.data.batches import train_batches
from poly_jax.data.quiet import seqio, tf
from poly_jax.data.routed import routed
from poly_jax.data.task_reader import TaskReader
from poly_jax.data.task_table import TaskTable
from poly_jax.errors import UserError

LENGTHS = {"inputs": 9, "targets": 7}


def texts(name, size):
    """A source of texts of different lengths."""

    def read(split, shuffle_files):
        return tf.data.Dataset.from_tensor_slices(
            {
                "inputs": [f"{name} {'in' * (number % 4)} {number}" for number in range(size)],
                "targets": [f"{name}{number * 7}" for number in range(size)],
            }
        )

    return seqio.FunctionDataSource(read, ("train",), num_input_examples={"train": size})


@pytest.fixture
def registered(registry):
    """A function that registers tasks of texts and a mixture of them."""

    def register(mixture, sizes, preprocessors=None, **options):
        feature = seqio.Feature(seqio.ByteVocabulary(), add_eos=True)
        for name, size in sizes.items():
            seqio.TaskRegistry.add(
                name,
                source=texts(name, size),
                preprocessors=preprocessors
                or [seqio.preprocessors.tokenize, seqio.preprocessors.append_eos_after_trim],
                output_features={"inputs": feature, "targets": feature},
                **options,
            )
        seqio.MixtureRegistry.add(mixture, list(sizes), default_rate=1.0)
        return routed(mixture, TaskTable.of(mixture))

    return register


def assert_read_as_seqio_reads(mixture, reader, **options):
    found = reader.read(mixture.tasks, seed=0)
    for place, task in enumerate(mixture.tasks):
        rows = list(
            task.unrouted.get_dataset(LENGTHS, split="train", shuffle=False, **options).as_numpy_iterator()
        )
        examples = found.rows.examples(found.of_task(place))
        for example, row in zip(examples, rows, strict=True):
            np.testing.assert_array_equal(example.inputs, row["inputs"])
            np.testing.assert_array_equal(example.targets, row["targets"])
            assert example.task == task.task_id


def test_examples_are_those_of_seqios_own_pipelines(registered):
    mixture = registered("some", {"a": 3, "b": 600, "c": 1})
    assert_read_as_seqio_reads(mixture, TaskReader("train", LENGTHS))


def test_tasks_that_are_made_alike_share_one_graph(registered):
    traced = []

    def note(dataset):
        traced.append(dataset)
        return dataset

    parts = [note, seqio.preprocessors.tokenize, seqio.preprocessors.append_eos]
    mixture = registered("alike", {f"t{number}": 2 for number in range(6)}, parts)
    found = TaskReader("train", LENGTHS).read(mixture.tasks, seed=0)
    assert found.sizes.tolist() == [2] * 6
    assert len(traced) == 1


def test_tasks_with_other_preprocessors_features_or_classes_are_read_apart(registered):
    class OwnTask(seqio.Task):
        def get_dataset(self, *args, **options):
            return super().get_dataset(*args, **options).take(1)

    registered("one", {"a": 3})
    registered("two", {"b": 2}, [seqio.preprocessors.tokenize, seqio.preprocessors.append_eos])
    feature = seqio.Feature(seqio.ByteVocabulary(), add_eos=False)
    parts = [seqio.preprocessors.tokenize]
    features = {"inputs": feature, "targets": feature}
    seqio.TaskRegistry.add_provider("c", OwnTask("c", texts("c", 4), features, parts))
    seqio.MixtureRegistry.add("all", ["a", "b", "c"], default_rate=1.0)
    mixture = routed("all", TaskTable.of("all"))
    assert TaskReader("train", LENGTHS).read(mixture.tasks, 0).sizes.tolist() == [3, 2, 1]
    assert_read_as_seqio_reads(mixture, TaskReader("train", LENGTHS))


def cache(task, folder, shards):
    """Write a task's examples as seqio's cache of them, of the rows before the placeholder."""
    folder = folder / task.name
    folder.mkdir(parents=True)
    rows = list(task.source.get_dataset("train", shuffle=False).as_numpy_iterator())
    for shard in range(shards):
        path = folder / f"train.tfrecord-{shard:05}-of-{shards:05}"
        with tf.io.TFRecordWriter(str(path)) as writer:
            for row in np.array_split(np.arange(len(rows)), shards)[shard]:
                features = {
                    name: tf.train.Feature(bytes_list=tf.train.BytesList(value=[text]))
                    for name, text in rows[row].items()
                }
                example = tf.train.Example(features=tf.train.Features(feature=features))
                writer.write(example.SerializeToString())
    spec = {name: {"shape": [], "dtype": "string"} for name in ("inputs", "targets")}
    info = {"num_shards": shards, "features": spec, "seqio_version": seqio.__version__}
    (folder / "info.train.json").write_text(json.dumps(info))
    (folder / "stats.train.json").write_text(json.dumps({"examples": len(rows)}))
    (folder / "COMPLETED").touch()


def test_examples_of_offline_caches_are_those_of_the_source(registered, tmp_path, monkeypatch):
    parts = [
        seqio.CacheDatasetPlaceholder(),
        seqio.preprocessors.tokenize,
        seqio.preprocessors.append_eos_after_trim,
    ]
    mixture = registered("cached", {"a": 5, "b": 700}, parts)
    seqio.add_global_cache_dirs([str(tmp_path)])
    for task, shards in zip(mixture.tasks, (1, 3), strict=True):
        cache(task.unrouted, tmp_path, shards)
    monkeypatch.setattr(seqio.FunctionDataSource, "get_dataset", None)
    # With the sources out of order, only the caches can be read; the pipelines below read the sources again.
    with pytest.raises(UserError, match="'a'"):
        TaskReader("train", LENGTHS).read(mixture.tasks, 0)
    monkeypatch.undo()
    assert_read_as_seqio_reads(mixture, TaskReader("train", LENGTHS, use_cached=True), use_cached=True)


def test_only_preprocessors_with_random_operations_are_run_again_in_each_epoch(registered):
    @seqio.map_over_dataset(num_seeds=1)
    def drawn(example, seed):
        return {**example, "targets": tf.random.stateless_uniform([2], seed, 3, 259, tf.int32)}

    fixed = registered("fixed", {"a": 2})
    parts = [seqio.preprocessors.tokenize, drawn]
    random = registered("random", {"b": 2}, parts)
    tasks = [*fixed.tasks, *random.tasks]
    assert TaskReader("train", LENGTHS).read(tasks, 0).random.tolist() == [False, True]


def test_examples_larger_than_the_memory_are_refused_with_what_to_do(registered, monkeypatch):
    mixture = registered("large", {"a": 300})
    monkeypatch.setattr(task_reader, "_MEMORY_SHARE", 1e-9)
    with pytest.raises(UserError, match=r"task 'a' take .* set Data.reading = 'streamed'"):
        TaskReader("train", LENGTHS).read(mixture.tasks, 0)


def test_a_mixture_with_its_own_way_to_sample_is_refused_with_what_to_do(registered):
    registered("plain", {"a": 2, "b": 2})
    seqio.MixtureRegistry.add(
        "own",
        [("a", 1), ("b", 1)],
        sample_fn=lambda datasets, rates, seed: datasets[0].concatenate(datasets[1]),
    )
    settings = {"sequence_length": LENGTHS, "batch_size": 2, "seed": 0}
    with pytest.raises(UserError, match=r"'own' has a sample_fn of its own.*Data.reading = 'streamed'"):
        train_batches("own", TaskTable.of("own"), **settings)
    next(train_batches("own", TaskTable.of("own"), reading="streamed", **settings))


def test_features_that_are_no_vectors_of_ids_are_refused_by_name(registered):
    def matrix(dataset):
        return dataset.map(lambda example: {**example, "inputs": tf.ones([2, 2], tf.int32)})

    feature = seqio.Feature(seqio.ByteVocabulary(), rank=2)
    seqio.TaskRegistry.add(
        "matrix",
        source=texts("matrix", 2),
        preprocessors=[seqio.preprocessors.tokenize, matrix],
        output_features={"inputs": feature, "targets": seqio.Feature(seqio.ByteVocabulary())},
    )
    mixture = routed("matrix", TaskTable.of("matrix"))
    with pytest.raises(UserError, match=r"feature 'inputs' of task 'matrix' is int32 \(2, 2\)"):
        TaskReader("train", LENGTHS).read(mixture.tasks, 0)
