"""The rows that an encoding makes of many examples at once are those that it makes of each."""

import json

import numpy as np
import pytest

from poly_jax.data import vocabularies
from poly_jax.data.drawn_reference import DrawnReference, reference_columns
from poly_jax.data.padded_rows import padded_choices, padded_rows
from poly_jax.data.quiet import seqio, tf
from poly_jax.data.routed import routed
from poly_jax.data.task_reader import TaskReader
from poly_jax.data.task_table import TaskTable
from poly_jax.errors import UserError
from poly_jax.prepare.records import described, serialized
from poly_jax.tasks.crossfit.encoding import Encoding as CrossFit
from poly_jax.tasks.from_files.encoding import Encoding as FromFiles
from poly_jax.tasks.super_natural_instructions.encoding import Encoding as Instructions
from poly_jax.tasks.super_natural_instructions.prompts import form

LENGTHS = {"inputs": 40, "targets": 6}
SIZES = {"a": 3, "b": 300, "c": 1}
# Texts without a word, of one character of several bytes, and longer than the lengths.
TEXTS = ["add x to the rest.", "", "ü", "it is here " * 12, "you return <extra_id_0> <new> y"]


@pytest.fixture(scope="module")
def model(sentencepiece_model, tmp_path_factory):
    """The path of a SentencePiece model."""
    path = tmp_path_factory.mktemp("vocabulary") / "spiece.model"
    path.write_bytes(sentencepiece_model)
    return str(path)


VOCABULARIES = {
    "pieces": lambda model: vocabularies.sentencepiece(model, 10),
    "bytes": lambda model: vocabularies.byte(),
    "added": lambda model: vocabularies.sentencepiece(model, 10, {"<new>": 90}),
}
ENCODINGS = {
    "from_files": FromFiles,
    "crossfit": CrossFit,
    "instructions": lambda vocabulary: Instructions(form("NEW"), vocabulary),
    "old_instructions": lambda vocabulary: Instructions(form("OLD"), vocabulary),
}


def columns(size, choices):
    """Fields that all encodings read; every third example has one reference, the others two or three."""
    several = [[f"{TEXTS[n % 4]}{n}", *["the rest", TEXTS[-n % 5]][: n % 3]] for n in range(size)]
    found = {
        **{name: [f"{TEXTS[n % 5]} {name[0]}" for n in range(size)] for name in ("inputs", "input", "id")},
        **{name: [f"{name} {TEXTS[-n % 4]}" for n in range(size)] for name in ("task", "definition")},
        "description": ["" if n % 2 else "it is" for n in range(size)],
        "demonstration_inputs": [["x" * (n % 9), "we add.", "y."] for n in range(size)],
        "demonstration_outputs": [["here.", "rest " * (n % 7), "x."] for n in range(size)],
        # Columns of one task have one shape; here all tasks are read through one graph.
        **reference_columns([*several, ["x", "y", "z"]]),
    }
    found["references"] = found["references"][:size]
    found["num_references"] = found["num_references"][:size]
    if choices:
        found["choices"] = [["yes", TEXTS[n % 5], ""] for n in range(size)]
        found["label"] = np.arange(size, dtype=np.int32) % 2
        found["example_id"] = np.arange(size, dtype=np.int32)
    return found


@pytest.fixture
def registered(monkeypatch):
    """A function that registers tasks of three sizes with one encoding, and their mixture."""
    monkeypatch.setattr(seqio.TaskRegistry, "_REGISTRY", dict(seqio.TaskRegistry._REGISTRY))
    monkeypatch.setattr(seqio.MixtureRegistry, "_REGISTRY", dict(seqio.MixtureRegistry._REGISTRY))

    def register(encoding, vocabulary, choices=False, make=columns):
        feature = seqio.Feature(vocabulary)
        for name, size in SIZES.items():

            def read(split, shuffle_files, name=name, size=size):
                return tf.data.Dataset.from_tensor_slices(make(size, choices))

            seqio.TaskRegistry.add(
                name,
                source=seqio.FunctionDataSource(read, ("train",)),
                preprocessors=[seqio.CacheDatasetPlaceholder(), encoding],
                output_features={"inputs": feature, "targets": feature},
            )
        seqio.MixtureRegistry.add("all", list(SIZES), default_rate=1.0)
        return routed("all", TaskTable.of("all")).tasks

    return register


def rows(read, task):
    """Everything that was read of a task, row by row."""
    numbers = read.of_task(task)
    examples = read.rows.examples(numbers)
    found = [[example.inputs.tolist(), example.targets.tolist(), example.task] for example in examples]
    texts = [*padded_rows(read.rows, numbers, LENGTHS).items()]
    if read.rows.choices is not None:
        texts += [*padded_choices(read.rows, numbers, 3, LENGTHS["targets"]).items()]
    return found, read.rows.example_ids[numbers].tolist(), {name: array.tolist() for name, array in texts}


@pytest.mark.parametrize(
    ("encoding", "vocabulary", "choices"),
    [
        ("from_files", "pieces", True),
        ("from_files", "bytes", True),
        ("from_files", "added", False),
        ("crossfit", "pieces", False),
        ("instructions", "pieces", False),
        ("instructions", "bytes", False),
        ("old_instructions", "bytes", False),
    ],
)
def test_many_examples_at_once_give_the_rows_of_one_after_another(
    registered, model, monkeypatch, encoding, vocabulary, choices
):
    made = ENCODINGS[encoding](VOCABULARIES[vocabulary](model))
    tasks = registered(made, VOCABULARIES[vocabulary](model), choices)
    reader = TaskReader("train", LENGTHS, every_target=True)
    with monkeypatch.context() as patch:
        patch.setattr(DrawnReference, "_row", None)
        together = reader.read(tasks, seed=0)
    monkeypatch.setattr(type(made), "encodes_many", False)
    apart = reader.read(tasks, seed=0)
    for place, size in enumerate(SIZES.values()):
        assert apart.sizes[place] == size + sum(n % 3 for n in range(size))
        assert rows(together, place) == rows(apart, place)
    assert not together.random.any()


def test_many_records_of_a_cache_give_the_rows_of_the_source(registered, tmp_path, monkeypatch):
    tasks = registered(FromFiles(vocabularies.byte()), vocabularies.byte(), choices=True)
    raw = TaskReader("train", LENGTHS, every_target=True).read(tasks, seed=0)
    for shards, task in zip((1, 3, 2), tasks, strict=True):
        folder = tmp_path / task.name
        folder.mkdir()
        dataset = task.source.get_dataset("train", shuffle=False)
        records = serialized(next(iter(dataset.batch(1000))))
        for shard, places in enumerate(np.array_split(np.arange(len(records)), shards)):
            path = folder / f"train.tfrecord-{shard:05}-of-{shards:05}"
            with tf.io.TFRecordWriter(str(path)) as writer:
                for place in places:
                    writer.write(records[place])
        info = {"num_shards": shards, "features": described(dataset.element_spec), "seqio_version": "0.0.20"}
        (folder / "info.train.json").write_text(json.dumps(info))
        (folder / "stats.train.json").write_text(json.dumps({"examples": len(records)}))
        (folder / "COMPLETED").touch()
    monkeypatch.setattr(seqio.utils, "_GLOBAL_CACHE_DIRECTORIES", [str(tmp_path)])
    reader = TaskReader("train", LENGTHS, use_cached=True, every_target=True)
    with monkeypatch.context() as patch:
        patch.setattr(seqio.FunctionDataSource, "get_dataset", None)
        patch.setattr(DrawnReference, "_row", None)
        together = reader.read(tasks, seed=0)
    # The task of one file has the order of its source; of several files, seqio takes some records in turn.
    assert rows(together, 0) == rows(raw, 0)
    monkeypatch.setattr(FromFiles, "encodes_many", False)
    apart = reader.read(tasks, seed=0)
    for place in range(len(tasks)):
        assert rows(together, place) == rows(apart, place)


def test_a_text_that_cannot_be_read_is_reported_with_its_task(registered):
    def broken(size, choices):
        found = columns(size, choices)
        if size == SIZES["b"]:
            # A number of references that the example does not have, as in a damaged cache.
            found["num_references"] = tf.constant([7] * size, tf.int32)
        return found

    tasks = registered(FromFiles(vocabularies.byte()), vocabularies.byte(), make=broken)
    with pytest.raises(
        UserError, match=r"preprocessor .*one_row_per_target.* of task 'b' failed on split 'train'"
    ):
        TaskReader("train", LENGTHS, every_target=True).read(tasks, seed=0)
