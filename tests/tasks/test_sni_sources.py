"""Super-NaturalInstructions from archives and from TFDS, its tracks, and its subset for online evaluation."""

import json
import shutil
import tarfile
import zipfile

import pytest

from poly_jax.data import vocabularies
from poly_jax.data.quiet import seqio
from poly_jax.data.task_table import TaskTable
from poly_jax.errors import UserError
from poly_jax.tasks.super_natural_instructions import register
from poly_jax.tasks.super_natural_instructions.from_tfds import main, write_tasks
from poly_jax.tasks.super_natural_instructions.online_subset import ONLINE_SUBSET

BYTES = vocabularies.byte()
LENGTHS = {"inputs": 160, "targets": 12}
pytestmark = pytest.mark.usefixtures("registry")


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def checkout(folder, task_file, tmp_path):
    """Files of two train tasks and two test tasks, one of them of the subset, and lists of both tracks."""
    files = {
        "task1_a": task_file(5),
        "task2_b": task_file(4),
        "task3_c": task_file(101),
        ONLINE_SUBSET[0]: task_file(101),
    }
    path = folder(files, train=("task1_a",), test=("task3_c", ONLINE_SUBSET[0]))
    (path / "splits" / "xlingual").mkdir()
    for split, stems in (("train", "task1_a\ntask2_b\n"), ("test", "task3_c\n"), ("excluded", "")):
        (path / "splits" / "xlingual" / f"{split}_tasks.txt").write_text(stems)
    checkout = tmp_path / "natural-instructions"
    checkout.mkdir()
    for name in ("tasks", "splits"):
        (path / name).rename(checkout / name)
    return checkout


def targets(task, split="train"):
    dataset = seqio.TaskRegistry.get(task).get_dataset(LENGTHS, split=split, shuffle=False, seed=0)
    return [row["targets_pretokenized"].decode() for row in dataset.as_numpy_iterator()]


def test_the_tracks_have_their_own_lists(checkout):
    register(checkout, BYTES)
    register(checkout, BYTES, track="xlingual", prefix="x")
    assert TaskTable.of("sni_train").names == ("sni_task1_a",)
    assert TaskTable.of("x_train").names == ("x_task1_a", "x_task2_b")
    assert TaskTable.of("x_test").names == ("x_task3_c",)
    # A file that is in no test list of the track has no official test instances.
    assert "test" not in seqio.TaskRegistry.get(f"x_{ONLINE_SUBSET[0]}").splits


def test_the_subset_for_online_evaluation_is_a_mixture_of_the_english_track(checkout):
    register(checkout, BYTES)
    register(checkout, BYTES, track="xlingual", prefix="x")
    assert TaskTable.of("sni_test_20").names == (f"sni_{ONLINE_SUBSET[0]}",)
    assert "x_test_20" not in seqio.MixtureRegistry.names()


def test_the_subset_is_the_published_list(shared_data):
    lists = shared_data / "sni" / "splits" / "default"
    assert sorted(ONLINE_SUBSET) == sorted((lists / "test_tasks_20.txt").read_text().split())
    assert set(ONLINE_SUBSET) <= set((lists / "test_tasks.txt").read_text().split())


def test_a_reference_is_drawn_or_each_is_a_row(checkout):
    register(checkout, BYTES)
    register(checkout, BYTES, references="rows", prefix="rows")
    assert len(targets("sni_task1_a")) == 5
    assert sorted(targets("rows_task1_a")) == sorted(
        f"{word} {n}" for word in ("answer", "reply") for n in range(5)
    )
    mixture = seqio.MixtureRegistry.get("rows_train")
    assert [mixture.get_rate(task) for task in mixture.tasks] == [10.0]
    # Held-out tasks keep their number of shots, and are compared with all references.
    assert len(targets("rows_task3_c")) == 1
    assert len(targets("rows_task3_c", "test")) == 100


def archive(checkout, name):
    path = checkout.parent / name
    if name.endswith(".zip"):
        with zipfile.ZipFile(path, "w") as opened:
            for file in checkout.rglob("*"):
                opened.write(file, f"natural-instructions-master/{file.relative_to(checkout)}")
    else:
        with tarfile.open(path, "w:gz" if name.endswith("gz") else "w") as opened:
            opened.add(checkout, "natural-instructions-2.8")
    return path


@pytest.mark.parametrize("name", ["master.zip", "v2.8.tar.gz", "sni.tar"])
def test_an_archive_is_read_like_the_checkout_and_unpacked_once(checkout, name, capsys):
    register(checkout, BYTES)
    path = archive(checkout, name)
    shutil.rmtree(checkout)
    register(path, BYTES, prefix="packed")
    assert "is unpacked to" in capsys.readouterr().err
    assert TaskTable.of("packed_test").names == tuple(
        f"packed_{name}" for name in (ONLINE_SUBSET[0], "task3_c")
    )
    assert len(targets("packed_task3_c", "test")) == 100
    register(path, BYTES, prefix="again")
    assert "is unpacked to" not in capsys.readouterr().err


def test_an_archive_that_was_replaced_is_unpacked_again(checkout, task_file):
    path = archive(checkout, "sni.zip")
    register(path, BYTES)
    (checkout / "tasks" / "task1_a.json").write_text(json.dumps(task_file(3)))
    archive(checkout, "sni.zip")
    register(path, BYTES, prefix="new")
    assert (len(targets("sni_task1_a")), len(targets("new_task1_a"))) == (5, 3)


@pytest.mark.parametrize(
    ("name", "kept"), [("sni.zip", 600), ("sni.tar.gz", 600), ("sni.tar", 20480), ("sni.tar", 10000)]
)
def test_a_damaged_archive_is_refused_and_leaves_nothing(checkout, name, kept, tmp_path):
    path = archive(checkout, name)
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(UserError, match=rf"{name} is damaged \(.*\); fetch the archive again"):
        register(path, BYTES)
    assert not list((tmp_path / "cache").rglob("*.json"))


def test_an_archive_of_something_else_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "other.zip", "w") as opened:
        opened.writestr("README.md", "x")
        opened.writestr("tasks/../../outside.json", "x")
    with pytest.raises(UserError, match=r"other\.zip has no file like .*; give another archive"):
        register(tmp_path / "other.zip", BYTES)
    assert not list(tmp_path.rglob("outside.json"))


def example(task, number):
    return {
        "id": f"{task}-{number:02}",
        "input": f"question {number}",
        "output": f"answer {number}",
        "source": "made",
        "task_name": task,
        "definition": f"Do {task}.",
    }


def test_tfds_gives_the_training_tasks_and_not_the_held_out_ones(checkout, tmp_path, monkeypatch):
    monkeypatch.setattr("poly_jax.tasks.super_natural_instructions.from_tfds._HELD", 3)
    examples = [example(task, n) for n in (2, 0, 1) for task in ("task1_a", "task3_c", "task8_new")]
    counts = write_tasks(examples, checkout / "splits" / "default", tmp_path / "tfds")
    assert counts == {"task1_a": 3, "task8_new": 3}
    register(tmp_path / "tfds", BYTES, seed=1)
    assert TaskTable.of("sni_train").names == ("sni_task1_a",)
    assert sorted(targets("sni_task1_a")) == ["answer 0", "answer 1", "answer 2"]
    assert sorted(path.name for path in (tmp_path / "tfds").iterdir()) == ["splits", "tasks"]


def test_tfds_s_own_reader_is_used(checkout, tmp_path, capsys):
    import tensorflow as tf
    import tensorflow_datasets as tfds

    names = ("id", "input", "output", "source", "task_name", "definition")
    features = tfds.features.FeaturesDict({name: tfds.features.Text() for name in names})
    folder = tmp_path / "own" / "natural_instructions" / "1.0.1"
    folder.mkdir(parents=True)
    with tf.io.TFRecordWriter(str(folder / "own-train.tfrecord-00000-of-00001")) as writer:
        for number in range(2):
            writer.write(features.serialize_example(features.encode_example(example("task1_a", number))))
    tfds.folder_dataset.write_metadata(data_dir=str(folder), features=features)
    words = [f"--splits={checkout / 'splits' / 'default'}", f"--data_dir={tmp_path}"]
    assert main([*words, "--tfds=own/natural_instructions", f"--output={tmp_path / 'out'}"]) == 0
    assert "1 task with 2 instances" in capsys.readouterr().out
    assert main([*words, "--tfds=own/natural_instructions", f"--output={tmp_path / 'out'}"]) == 1
    assert "out exists; choose another output" in capsys.readouterr().err


def test_an_example_of_another_data_set_is_refused_and_nothing_is_left(checkout, tmp_path):
    examples = [example("task1_a", 0), {"id": "x", "input": "y"}]
    with pytest.raises(UserError, match="example 2 has no text 'output'"):
        write_tasks(examples, checkout / "splits" / "default", tmp_path / "tfds")
    assert not (tmp_path / "tfds").exists()


@pytest.mark.parametrize("setting", [{"track": "english"}, {"references": "all"}])
def test_an_unknown_setting_is_refused_by_name(checkout, setting):
    (name,) = setting
    with pytest.raises(UserError, match=rf"super_natural_instructions\.register\.{name} is '.*'; use '"):
        register(checkout, BYTES, **setting)
