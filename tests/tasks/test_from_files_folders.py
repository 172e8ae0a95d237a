"""The tasks of a folder are found in each layout that people have."""

import json

import pytest
from etils import epath

from poly_jax.errors import UserError
from poly_jax.tasks.from_files.folders import find_tasks


@pytest.fixture
def files(tmp_path):
    """A function that makes empty files and returns the tasks that are found: names of files by split."""

    def files(*names, below=""):
        for name in names:
            path = tmp_path / "tasks" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
        place = epath.Path(tmp_path) / "tasks"
        return {
            task: {split: [str(path.relative_to(place)) for path in paths] for split, paths in splits.items()}
            for task, splits in find_tasks(place / below if below else place).items()
        }

    return files


def test_a_file_is_a_task_and_so_is_a_folder_of_files_by_split(files):
    assert files("b.jsonl", "a/dev.csv", "a/train.csv", "a/test.tsv", "README.md", ".x/train.csv") == {
        "a": {"train": ["a/train.csv"], "validation": ["a/dev.csv"], "test": ["a/test.tsv"]},
        "b": {"train": ["b.jsonl"]},
    }


def test_suffixes_in_upper_case_are_those_in_lower_case(files):
    assert files("b.JSONL", "c.Tsv", "a/Train.CSV") == {
        "a": {"train": ["a/Train.CSV"]},
        "b": {"train": ["b.JSONL"]},
        "c": {"train": ["c.Tsv"]},
    }


def test_a_split_may_have_several_numbered_files_as_on_the_hub(files):
    names = [f"q/data/train-0000{n}-of-00002.parquet" for n in range(2)]
    assert files(*names, "q/data/validation-00000-of-00001.parquet", "q/README.md") == {
        "q": {"train": names, "validation": ["q/data/validation-00000-of-00001.parquet"]}
    }


@pytest.mark.parametrize("below", ["", "a.jsonl"])
def test_the_folder_or_file_of_one_task_is_that_task(files, below):
    names = ["a.jsonl"] if below else ["train.jsonl", "test.jsonl"]
    assert set(files(*names, below=below)) == {"a" if below else "tasks"}


def test_saved_data_sets_of_hugging_face_are_found_by_their_descriptions(files, tmp_path):
    for folder, splits in (("d", ["train", "dev"]), ("e", [""])):
        for split in splits:
            place = tmp_path / "tasks" / folder / split
            place.mkdir(parents=True)
            names = [{"filename": f"data-0000{n}-of-00002.arrow"} for n in range(2)]
            (place / "state.json").write_text(json.dumps({"_data_files": names, "_split": None}))
    (tmp_path / "tasks" / "d" / "dataset_dict.json").write_text('{"splits": ["train", "dev"]}')
    found = files()
    assert found["d"]["validation"] == [f"d/dev/data-0000{n}-of-00002.arrow" for n in range(2)]
    assert found["e"] == {"train": [f"e/data-0000{n}-of-00002.arrow" for n in range(2)]}


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["notes.txt"], r"holds no task; give a folder with a \.jsonl, \.csv, \.tsv or \.parquet file"),
        (["train.jsonl", "other.jsonl"], r"holds the files of a split \(train\.jsonl\) and another file"),
        (["a/train.jsonl", "a/train.csv"], r"are both the split 'train'"),
        (["a/dev.jsonl", "a/validation.jsonl"], r"are both the split 'validation'"),
        (["a.jsonl", "a.csv"], "has two tasks named 'a'"),
        (["a/train-00000-of-00002.jsonl"], r"lacks 1 of the 2 files of the split 'train', .* number 1;"),
        (["a/dev-2-of-3.csv"], "lacks 2 of the 3 files of the split 'validation', the first with number 1"),
        (["a/train-0-of-2.csv", "a/train-1-of-3.csv"], "say that they are 2 and 3 in number"),
    ],
)
def test_a_folder_whose_files_are_not_clear_is_refused(files, names, message):
    with pytest.raises(UserError, match=message):
        files(*names)


def test_a_missing_folder_and_a_file_of_another_kind_are_refused(files, tmp_path):
    with pytest.raises(UserError, match=r"there is no folder or file .*absent"):
        find_tasks(epath.Path(tmp_path) / "absent")
    with pytest.raises(UserError, match=r"a\.json is not a \.jsonl, \.csv, \.tsv or \.parquet file"):
        files("a.json", below="a.json")


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ("{", r"state\.json is not valid JSON"),
        ("{}", r"state\.json has no '_data_files'"),
        ('{"_data_files": []}', "lists no file"),
        ('{"_data_files": [{}]}', "has no 'filename'"),
        ('{"_data_files": [{"filename": "x"}], "_indices_data_files": [{}]}', "an old version of datasets"),
    ],
)
def test_a_broken_description_of_a_saved_data_set_is_named(files, tmp_path, state, message):
    (tmp_path / "tasks" / "a").mkdir(parents=True)
    (tmp_path / "tasks" / "a" / "state.json").write_text(state)
    with pytest.raises(UserError, match=message):
        files()


def test_a_description_cannot_name_a_file_outside_its_folder(files, tmp_path):
    (tmp_path / "tasks" / "a").mkdir(parents=True)
    (tmp_path / "tasks" / "a" / "state.json").write_text('{"_data_files": [{"filename": "../../x.arrow"}]}')
    assert files() == {"a": {"train": ["a/x.arrow"]}}
