"""`poly-jax prepare` in this process: what it writes, keeps, makes again and refuses."""

import json

import filelock
import numpy as np
import pytest

from poly_jax.data.quiet import seqio, tf
from poly_jax.data.task_table import TaskTable
from poly_jax.errors import UserError
from poly_jax.experiment import Data
from poly_jax.model.loss import TokenLoss
from poly_jax.prepare import rows
from poly_jax.training.mesh import Partitioning
from poly_jax.training.train import host_batches

LENGTHS = {"inputs": 32, "targets": 8}


def examples(name, split, use_cached):
    task = seqio.TaskRegistry.get(name)
    dataset = task.get_dataset(LENGTHS, split, use_cached=use_cached, shuffle=False, seed=0)
    return [
        {key: np.asarray(value).tolist() for key, value in row.items()} for row in dataset.as_numpy_iterator()
    ]


def values(tensor):
    return tensor.to_list() if isinstance(tensor, tf.RaggedTensor) else tensor.numpy().tolist()


def error_line(capsys):
    """The one line on standard error that begins with the program's name."""
    (line,) = (line for line in capsys.readouterr().err.splitlines() if line.startswith("poly-jax: error"))
    return line


def test_seqio_reads_the_same_examples_from_the_cache_as_from_the_raw_files(project):
    project.add("one", 7)
    project.add("one", 3, "test")
    project.add("two", 5)
    assert project.prepare() == 0
    seqio.add_global_cache_dirs([str(project.folder / "cache")])
    for name, split, count in (("one", "train", 7), ("one", "test", 3), ("two", "train", 5)):
        cached = examples(name, split, use_cached=True)
        assert len(cached) == count
        assert cached == examples(name, split, use_cached=False)
        assert seqio.TaskRegistry.get(name).get_cached_stats(split)["examples"] == count


def test_the_rows_of_several_shards_come_back_in_the_order_of_the_source(project, monkeypatch):
    monkeypatch.setattr(rows, "ROWS_PER_SHARD", 40)
    project.add("one", 150)
    assert project.prepare() == 0
    shards = sorted(path.name for path in (project.folder / "cache" / "one").glob("*.tfrecord-*"))
    assert shards == [f"train.tfrecord-{shard:05d}-of-00004" for shard in range(4)]
    seqio.add_global_cache_dirs([str(project.folder / "cache")])
    assert examples("one", "train", use_cached=True) == examples("one", "train", use_cached=False)


def test_each_file_of_a_source_becomes_a_shard(project, monkeypatch):
    monkeypatch.setattr(rows, "ROWS_PER_SHARD", 40)
    for part in range(3):
        (project.raw / f"part{part}.txt").write_text("".join(f"{part} {row}\n" for row in range(20)))
    change = ("source=Lines(files)", "source=TEXTS"), ("FOLDER = ", TEXT_SOURCE + "FOLDER = ")
    project.add("one", 1)
    project.write_module(change=change[0])
    module = project.folder / "prepared_tasks.py"
    module.write_text(module.read_text().replace(*change[1]).replace("PATTERN", str(project.raw / "*.txt")))
    module.write_text(
        module.read_text().replace("preprocessors=[", "preprocessors=[lambda lines: lines.map(both),")
    )
    assert project.prepare() == 0
    assert len(list((project.folder / "cache" / "one").glob("*-of-00003"))) == 3
    seqio.add_global_cache_dirs([str(project.folder / "cache")])
    cached = examples("one", "train", use_cached=True)
    assert len(cached) == 60
    assert cached == examples("one", "train", use_cached=False)


TEXT_SOURCE = """
TEXTS = seqio.TextLineDataSource({"train": "PATTERN"}, num_input_examples={"train": 60})


def both(line):
    return {"inputs": line, "targets": line}


"""


@pytest.mark.parametrize(
    "column",
    [
        tf.constant([[1, 2], [3, 4], [5, 6]], tf.int32),
        tf.constant([[["a", "b"]], [["c", "d"]], [["e", ""]]]),
        tf.ragged.constant([[1], [], [2, 3]], dtype=tf.int32),
        tf.ragged.constant([[[1.5], [2.0, 3.0]], [], [[4.0]]], dtype=tf.float32),
        tf.constant([True, False, True]),
        tf.constant([2**40, 1, 0], tf.int64),
        tf.constant([[], [], []], tf.int32),
    ],
    ids=["ids", "choices", "sequence", "nested", "bool", "large", "empty"],
)
def test_features_of_every_shape_come_back_from_the_cache(project, column):
    name = "shapes"
    text = seqio.Feature(seqio.ByteVocabulary(), add_eos=False)

    def read(split, shuffle_files):
        del split, shuffle_files
        texts = ["a", "bc", "d"]
        return tf.data.Dataset.from_tensor_slices({"inputs": texts, "targets": texts, "column": column})

    seqio.TaskRegistry.add(
        name,
        source=seqio.FunctionDataSource(read, ["train"]),
        preprocessors=[seqio.CacheDatasetPlaceholder(), seqio.preprocessors.tokenize],
        output_features={"inputs": text, "targets": text},
    )
    try:
        project.add("one", 2)
        assert project.prepare("cache", 1, "--mixture", "shapes") == 0
        seqio.add_global_cache_dirs([str(project.folder / "cache")])
        task = seqio.TaskRegistry.get(name)
        cached, uncached = (task.get_dataset(LENGTHS, use_cached=use, shuffle=False) for use in (True, False))
        # The first axis of a sequence of no elements has no static size in a cache.
        if 0 not in uncached.element_spec["column"].shape.as_list():
            mine, theirs = (dataset.element_spec["column"] for dataset in (cached, uncached))
            assert (mine.shape.as_list(), mine.dtype) == (theirs.shape.as_list(), theirs.dtype)
        for mine, theirs in zip(cached, uncached, strict=True):
            assert type(mine["column"]) is type(theirs["column"])
            assert mine["column"].dtype == theirs["column"].dtype
            assert values(mine["column"]) == values(theirs["column"])
    finally:
        seqio.TaskRegistry.remove(name)


def test_the_report_has_lengths_and_the_share_that_is_cut(project):
    project.add("one", 10)
    assert project.prepare() == 0
    (split,) = project.report()["splits"]
    # The inputs have 10 to 14 bytes, twice each, and an end of sequence; the limits are 12 and 4.
    inputs = np.repeat(np.arange(11, 16), 2)
    assert split["examples"] == 10
    assert split["lengths"]["inputs"] == {
        **{
            f"percentile_{percent}": int(np.percentile(inputs, percent, method="inverted_cdf"))
            for percent in (50, 90, 99)
        },
        "longest": int(inputs.max()),
        "share_truncated": float(np.mean(inputs > 12)),
    }
    assert split["lengths"]["targets"]["longest"] == 2
    assert split["lengths"]["targets"]["share_truncated"] == 0


def test_a_task_that_needs_a_length_is_measured_with_the_limits(project):
    project.add("one", 10)
    cut = "lambda rows, sequence_length: rows.map(lambda row: cut(row, sequence_length['inputs'])),"
    project.write_module(change=("seqio.preprocessors.append_eos,", cut))
    with (project.folder / "prepared_tasks.py").open("a") as module:
        module.write(CUT)
    assert project.prepare() == 0
    (split,) = project.report()["splits"]
    # The inputs have 10 to 14 bytes, twice each, and are cut to 12.
    assert split["lengths"]["inputs"]["longest"] == 12
    assert split["lengths"]["inputs"]["percentile_50"] == 12


CUT = """


def cut(row, length):
    return {**row, "inputs": row["inputs"][:length]}
"""


def test_a_preprocessor_that_fails_after_the_placeholder_is_named(project, capsys):
    project.add("one", 3)
    fails = "lambda rows: rows.map(lambda row: {**row, 'inputs': row['nothing']}),"
    project.write_module(change=("seqio.preprocessors.append_eos,", fails))
    assert project.prepare() == 1
    line = error_line(capsys)
    assert "the preprocessors of task 'one' after its CacheDatasetPlaceholder failed: KeyError" in line


def test_a_broken_row_is_in_the_report_and_on_the_page(project, capsys):
    path = project.add("one", 3)
    path.write_text(path.read_text() + "not JSON\n")
    assert project.prepare() == 0
    (split,) = project.report()["splits"]
    assert split["examples"] == 3
    assert split["dropped"] == [{"file": str(path), "line": 4, "reason": "is not JSON <&>"}]
    page = (project.folder / "cache" / "prepare.html").read_text()
    assert f"<td>{path}</td><td>4</td><td>is not JSON &lt;&amp;&gt;</td>" in page
    assert f"dropped from one, train: {path}, line 4: is not JSON <&>" in capsys.readouterr().out


def test_a_finished_cache_is_kept_as_it_is(project):
    project.add("one", 4)
    assert project.prepare() == 0
    folder = project.folder / "cache" / "one"
    before = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    assert project.prepare() == 0
    assert {path: path.stat().st_mtime_ns for path in folder.iterdir()} == before


@pytest.mark.parametrize(
    "name",
    ["train.tfrecord-00000-of-00001", "info.train.json", "stats.train.json", "report.json", "manifest.json"],
)
@pytest.mark.parametrize(
    "damage", [lambda data: data[:-1], lambda data: b"~" + data[1:]], ids=["cut", "changed"]
)
def test_a_damaged_file_is_named_and_made_again(project, capsys, name, damage):
    project.add("one", 4)
    assert project.prepare() == 0
    before = project.contents()
    path = project.folder / "cache" / "one" / name
    path.write_bytes(damage(path.read_bytes()))
    capsys.readouterr()
    assert project.prepare() == 0
    assert f"one is prepared again: {name} does not match its checksum" in capsys.readouterr().err
    assert project.contents() == before


def change_raw_file(project):
    project.add("one", 5)


def change_preprocessor(project):
    upper = "lambda rows: rows.map(lambda row: {**row, 'inputs': tf.strings.upper(row['inputs'])}),"
    project.write_module(change=("preprocessors=[", f"preprocessors=[{upper}"))


def change_splits(project):
    project.add("one", 5, "test")


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (change_raw_file, "raw file one_train.jsonl has changed"),
        (change_preprocessor, "its first rows are different now"),
        (change_splits, "it had the splits train, and has test, train now"),
    ],
)
def test_a_cache_of_other_data_is_refused_and_left_as_it_is(project, capsys, change, why):
    project.add("one", 4)
    assert project.prepare() == 0
    before = project.contents()
    change(project)
    project.add("two", 4)
    assert project.prepare() == 1
    line = error_line(capsys)
    assert str(project.folder / "cache" / "one") in line
    assert why in line
    assert project.contents() == before


def test_raw_files_may_move_and_get_other_dates(project):
    project.add("one", 4)
    assert project.prepare() == 0
    before = project.contents()
    project.raw = project.raw.rename(project.folder / "elsewhere")
    (project.raw / "one_train.jsonl").touch()
    project.write_module()
    assert project.prepare() == 0
    assert project.contents() == before


def test_other_lengths_change_the_report_and_not_the_rows(project, capsys):
    project.add("one", 4)
    assert project.prepare() == 0
    before = project.contents()
    assert project.prepare("cache", 1, "--gin.Data.inputs_length=11") == 0
    assert "one is prepared again: its report is for other lengths" in capsys.readouterr().err
    after = project.contents()
    changed = {name for name in before if before[name] != after[name]}
    assert changed == {
        "prepare.json",
        "prepare.html",
        "one/COMPLETED",
        "one/manifest.json",
        "one/report.json",
    }
    assert project.report()["splits"][0]["lengths"]["inputs"]["share_truncated"] == 0.75


def test_a_cache_of_another_program_is_refused(project, capsys):
    project.add("one", 4)
    folder = project.folder / "cache" / "one"
    folder.mkdir(parents=True)
    (folder / "COMPLETED").touch()
    assert project.prepare() == 1
    assert f"{folder} holds a cache that `poly-jax prepare` has not made" in error_line(capsys)


def test_a_folder_of_other_files_is_refused_and_left_as_it_is(project, capsys):
    project.add("one", 4)
    folder = project.folder / "cache"
    folder.mkdir()
    (folder / "thesis.tex").write_text("mine")
    assert project.prepare() == 1
    assert "--output_dir=cache holds other files (thesis.tex) and no cache" in error_line(capsys)
    assert [path.name for path in folder.iterdir()] == ["thesis.tex"]


def test_other_files_may_be_added_to_a_cache_that_is_not_finished(project):
    project.add("one", 4)
    (project.raw / "bad_train.jsonl").write_text('{"inputs": "no target"}\n')
    assert project.prepare() == 1
    (project.folder / "cache" / "notes.txt").write_text("mine")
    project.add("bad", 4)
    assert project.prepare() == 0


def test_files_of_others_in_a_tasks_folder_stay(project):
    project.add("one", 4)
    folder = project.folder / "cache" / "one"
    folder.mkdir(parents=True)
    (folder / "notes.txt").write_text("mine")
    (folder / "train.tfrecord-00000-of-00009").write_text("of a run that was stopped")
    assert project.prepare() == 0
    assert (folder / "notes.txt").read_text() == "mine"
    assert not (folder / "train.tfrecord-00000-of-00009").exists()


def test_a_task_without_a_placeholder_is_named_and_left_out(project, capsys):
    project.add("one", 4)
    project.write_module(change=("seqio.CacheDatasetPlaceholder(),", ""))
    assert project.prepare() == 1
    assert "no task of prepared can be cached (one): put seqio.CacheDatasetPlaceholder()" in error_line(
        capsys
    )


def test_the_other_tasks_are_prepared_where_one_fails(project, capsys):
    project.add("one", 4)
    (project.raw / "bad_train.jsonl").write_text('{"inputs": "no target"}\n')
    assert project.prepare() == 1
    line = error_line(capsys)
    assert "task 'bad', split 'train'" in line
    assert "KeyError" in line
    assert (project.folder / "cache" / "one" / "COMPLETED").exists()
    assert not list((project.folder / "cache" / "bad").iterdir())


def test_a_folder_that_is_being_written_is_refused(project, capsys):
    project.add("one", 4)
    (project.folder / "cache").mkdir()
    with filelock.FileLock(project.folder / "cache" / ".prepare.lock"):
        assert project.prepare() == 1
    assert "another `poly-jax prepare` is writing there" in error_line(capsys)


def test_a_remote_folder_is_refused(project, capsys):
    project.add("one", 4)
    assert project.prepare("gs://bucket/cache") == 1
    assert "is not a local folder" in error_line(capsys)


def test_training_reads_the_cache_and_not_the_raw_files(project):
    path = project.add("one", 4)
    assert project.prepare() == 0
    data = Data("prepared", 16, 4, batch_size=2, cache_dir="cache")
    path.write_text("\n".join(json.dumps({"inputs": "other", "targets": "z"}) for _ in range(4)) + "\n")
    batches = host_batches(data, TaskTable.of("prepared"), 0, TokenLoss(), Partitioning().mesh(), 0)
    drawn = {int(token) for _ in range(8) for token in next(batches)["decoder_target_tokens"][:, 0]}
    # The token of a byte is 3 above it.
    assert drawn == {ord(str(number)) + 3 for number in range(4)}


def test_a_task_that_is_not_in_the_cache_is_named(project):
    project.add("one", 4)
    assert project.prepare() == 0
    seqio.set_global_cache_dirs([])
    data, mesh = Data("prepared", 16, 4, cache_dir="elsewhere"), Partitioning().mesh()
    with pytest.raises(UserError, match=r"Data.cache_dir 'elsewhere' has no complete cache of task 'one'"):
        host_batches(data, TaskTable.of("prepared"), 0, TokenLoss(), mesh, 0)
