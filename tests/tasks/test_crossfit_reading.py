"""CrossFit's TSV files are read line by line, and written back byte for byte."""

import hashlib
import json

import pytest
from etils import epath

from poly_jax.errors import UserError
from poly_jax.tasks.crossfit.labels import LABELS
from poly_jax.tasks.crossfit.reading import Row, read_rows
from poly_jax.tasks.crossfit.sample_files import data_folder, find_splits
from poly_jax.tasks.crossfit.writing import md5, to_bytes


@pytest.fixture
def read(tmp_path):
    """A function that reads the rows of a file with some content."""

    def read(content, **options):
        path = epath.Path(tmp_path) / "t_16_13_train.tsv"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return read_rows(path, **options)

    return read


def test_a_line_is_an_input_and_its_references(read):
    rows = read("who?\tme\tyou\n two  words \t x\n")
    assert [row.input for row in rows] == ["who?", "two  words "]
    # The line is stripped, and not each of its fields.
    assert [row.references for row in rows] == [("me", "you"), (" x",)]


def test_only_a_line_feed_ends_a_line(read):
    (row,) = read("one\rtwo\x85three\u2028four\tx\r\n")
    assert row.input == "one\rtwo\x85three\u2028four"
    assert row.references == ("x",)


def test_empty_columns_at_the_end_vanish(read):
    assert read("a\tb\t\t \n")[0].references == ("b",)


@pytest.mark.parametrize(
    ("content", "line", "complaint"),
    [
        ("a\tb\nno target\n", 2, "has no tab between input and target: 'no target'"),
        ("a\tb\n\n", 2, "has no tab between input and target: ''"),
        ("a\t\n", 1, r"has an empty target: 'a\\t'"),
        ("a\tb\t\tc\n", 1, "has an empty target"),
        ("a\tb\n \tb\n", 2, "has an empty input"),
        (b"a\tb\na\tb\ncaf\xe9\tb\n", 3, r"is not UTF-8 \(.* at byte 3\)"),
    ],
)
def test_a_broken_line_is_named_with_its_file_and_number(read, content, line, complaint):
    with pytest.raises(UserError, match=rf"t_16_13_train\.tsv, line {line} {complaint}") as error:
        read(content)
    assert "\n" not in str(error.value)


def test_a_file_without_a_line_and_a_missing_file_are_refused(read, tmp_path):
    with pytest.raises(UserError, match=r"train\.tsv has no line"):
        read("")
    with pytest.raises(UserError, match=r"absent\.tsv is missing"):
        read_rows(epath.Path(tmp_path) / "absent.tsv")


CHOICES = "Who is it?  (A) the cat (B) a dog [SEP] It barks."


# What follows the choices may be anything, so the first words of a choice are accepted too.
@pytest.mark.parametrize("answer", ["the cat", "a dog", "the"])
def test_an_answer_that_is_one_of_the_choices_is_accepted(read, answer):
    assert len(read(f"{CHOICES}\t{answer}\n", check_choices=True)) == 1


@pytest.mark.parametrize("answer", ["a cat", "the ca", "It barks.", "The cat"])
def test_an_answer_outside_the_choices_is_refused_where_they_are_checked(read, answer):
    text = f"x (A) y (B) z\ty\n{CHOICES}\t{answer}\n"
    with pytest.raises(UserError, match=rf"line 2: target '{answer}' is not one of the choices"):
        read(text, check_choices=True)
    assert len(read(text)) == 2


def test_a_target_that_is_no_label_is_refused_where_the_labels_are_known(read):
    text = "a\tyes\nb\tno\nc\tYes\n"
    with pytest.raises(
        UserError, match=r"line 3: target 'Yes' is not one of the task's labels 'no', 'yes'; repair"
    ):
        read(text, labels={"yes", "no"})
    assert len(read(text)) == 3
    with pytest.raises(
        UserError, match=r"target 'x' .* labels '0', '1', '10', '11', '2', '3', \.\.\.; repair"
    ):
        read("a\tx\n", labels=set(map(str, range(12))))


def test_an_input_without_choices_may_have_any_answer(read):
    assert read("plain\tanything\n", check_choices=True)


def test_what_was_read_is_written_byte_for_byte(read):
    content = "  who? \tme \tyou\nété\rx\t\u2028y\r\na\tb\t\n".encode()
    rows = read(content)
    assert to_bytes(rows) == content
    assert md5(rows) == hashlib.md5(content).hexdigest()


def test_md5_is_the_published_sum_of_a_file():
    # md5sum of the file "a<tab>b\n", by coreutils.
    assert md5([Row(("a", "b"))]) == "853b87221d4e354c521294d17763bc05"


@pytest.mark.parametrize("fields", [("a",), ("a\tb", "c"), ("a", "b\nc")])
def test_a_row_that_is_no_line_cannot_be_written(fields):
    with pytest.raises(UserError, match=r"row 2, .* cannot be written as TSV"):
        to_bytes([Row(("x", "y")), Row(fields)])


@pytest.fixture
def files(tmp_path):
    """A function that makes files of these names, all with one row, in the folder of task 'a_b-c'."""

    def files(*names):
        (tmp_path / "a_b-c").mkdir(exist_ok=True)
        for name in names:
            (tmp_path / "a_b-c" / name).write_text("x\ty\n")
        return epath.Path(tmp_path)

    return files


def names(splits):
    return {split: [path.name for path in paths] for split, paths in splits.items()}


def test_samples_are_joined_in_the_order_of_the_text_of_their_seeds(files):
    every = [f"a_b-c_32_{seed}_{kind}.tsv" for seed in (13, 100, 21) for kind in ("train", "dev", "test")]
    found = names(find_splits(files(*every, "a_b-c_32_13_train.json", "a_32_13_train.tsv"), "a_b-c"))
    assert found["train"] == [f"a_b-c_32_{seed}_train.tsv" for seed in (100, 13, 21)]
    assert found["all"] == [
        f"a_b-c_32_{seed}_{kind}.tsv" for seed in (100, 13, 21) for kind in ("train", "dev")
    ]
    assert found["validation_21"] == ["a_b-c_32_21_dev.tsv"]
    assert found["test"] == ["a_b-c_32_100_test.tsv"]
    assert list(found)[-1] == "test"
    assert len(found) == 10


def test_seeds_can_be_chosen_and_must_be_there(files):
    folder = files(*(f"a_b-c_7_{seed}_train.tsv" for seed in (1, 2, 3)))
    assert names(find_splits(folder, "a_b-c", seeds=(3, 1)))["train"] == [
        "a_b-c_7_3_train.tsv",
        "a_b-c_7_1_train.tsv",
    ]
    with pytest.raises(UserError, match=r"a_b-c has no file of seed 9; it has seeds 1, 2, 3"):
        find_splits(folder, "a_b-c", seeds=(1, 9))


def test_several_numbers_of_shots_need_a_choice(files):
    folder = files("a_b-c_16_13_train.tsv", "a_b-c_32_13_train.tsv")
    assert names(find_splits(folder, "a_b-c", shots=16))["train"] == ["a_b-c_16_13_train.tsv"]
    with pytest.raises(
        UserError, match=r"numbers of shots: 16, 32; crossfit.register.shots does not say which"
    ):
        find_splits(folder, "a_b-c")
    with pytest.raises(UserError, match=r"shots: 16, 32; crossfit.register.shots asks for 8"):
        find_splits(folder, "a_b-c", shots=8)


def test_a_task_without_files_has_no_splits(files):
    assert find_splits(files("readme.txt"), "a_b-c") == {}
    assert find_splits(files(), "absent") == {}


def test_the_tasks_are_in_data_or_tsv_or_the_folder_itself(tmp_path):
    root = epath.Path(tmp_path)
    assert data_folder(root) == root
    (tmp_path / "tsv").mkdir()
    assert data_folder(root) == root / "tsv"
    (tmp_path / "data").mkdir()
    assert data_folder(root) == root / "data"


def test_all_2400_official_file_names_are_found(shared_data, tmp_path):
    published = json.loads((shared_data / "crossfit" / "official_md5.json").read_text())
    shots = json.loads((shared_data / "crossfit" / "shots_per_task.json").read_text())
    for name in published:
        # <task>_<shots>_<seed>_<split>.tsv
        folder = tmp_path / name.rsplit("_", 3)[0]
        folder.mkdir(exist_ok=True)
        (folder / name).touch()
    found = {task: find_splits(epath.Path(tmp_path), task, count) for task, count in shots.items()}
    assert len(found) == 160
    assert all(list(splits)[:3] == ["train", "validation", "all"] for splits in found.values())
    assert all(len(splits["all"]) == 10 and len(splits) == 14 for splits in found.values())
    assert [path.name.split("_")[-2] for path in found["quoref"]["train"]] == ["100", "13", "21", "42", "87"]


def test_official_test_files_are_written_with_their_published_md5(shared_data):
    published = json.loads((shared_data / "crossfit" / "official_md5.json").read_text())
    paths = sorted((epath.Path(shared_data) / "crossfit" / "official_test").glob("*.tsv"))
    assert len(paths) == 11
    for path in paths:
        task_and_shots = path.name.removesuffix("_test.tsv")
        labels = LABELS.get(task_and_shots.rsplit("_", 1)[0])
        rows = read_rows(path, task_and_shots.startswith("quartz"), labels)
        # The test file is the same for all five samples.
        sums = {published[f"{task_and_shots}_{seed}_test.tsv"] for seed in (100, 13, 21, 42, 87)}
        assert sums == {md5(rows)}, path.name


def test_every_real_file_is_read(shared_data):
    folder = epath.Path(shared_data) / "crossfit" / "tsv"
    checked = ("commonsense_qa", "quartz-no_knowledge", "quartz-with_knowledge")
    # Rows of 20 tasks with five samples each, counted with `wc -l`.
    for split, count in {"train": 1600, "dev": 1600, "test": 7585}.items():
        paths = sorted(folder.glob(f"*/*_{split}.tsv"))
        rows = [
            row
            for path in paths
            for row in read_rows(path, path.parent.name in checked, LABELS.get(path.parent.name))
        ]
        assert (len(paths), len(rows)) == (100, count)
        assert all(len(row.references) == 1 for row in rows)


def test_labels_are_known_for_the_tasks_with_shots_for_each_class(shared_data):
    shots = json.loads((shared_data / "crossfit" / "shots_per_task.json").read_text())
    assert set(LABELS) == {task for task, count in shots.items() if count == 16}
    assert all(len(labels) > 1 for labels in LABELS.values())
    # Counted in CrossFit's scripts.
    assert {task: len(LABELS[task]) for task in ("discovery", "trec-finegrained", "tweet_eval-emoji")} == {
        "discovery": 174,
        "trec-finegrained": 47,
        "tweet_eval-emoji": 20,
    }
