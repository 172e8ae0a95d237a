"""Files that give the known group of each task."""

import json

import numpy as np
import pytest

from poly_jax.analysis.reference import read_grouping
from poly_jax.errors import UserError

NAMES = ("a", "b", "c")


def test_json_and_csv_files_give_the_same_groups(tmp_path):
    (tmp_path / "g.json").write_text(json.dumps({"c": ["y"], "b": "x", "a": ["y", "x"], "other": "z"}))
    (tmp_path / "g.csv").write_text("task,groups\na,x, y\n\nb,x,\nc,y\nother,z\n")
    for name in ("g.json", "g.csv"):
        groups, matrix = read_grouping(str(tmp_path / name), NAMES)
        assert groups == ["x", "y"]
        np.testing.assert_array_equal(matrix, [[1, 1], [1, 0], [0, 1]])


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("g.json", '{"a": "x", "b": "y"}', "lacks 1 task.* such as 'c'"),
        ("g.json", '{"a": "x", "b": "y", "cc": "y"}', "'c'.*did you mean 'cc'"),
        ("g.json", '{"a": "x", "a": "y"}', "'a' twice"),
        ("g.json", '{"a": []}', "no group for 'a'"),
        ("g.json", '{"a": 3}', "the value of 'a' is 3, not the name of a group"),
        ("g.json", '["a"]', "does not hold an object"),
        ("g.json", '{"a": ', "cannot be read as a .json file"),
        ("g.json", '{"a": "x", "b": "x", "c": "x"}', "there is nothing to compare"),
        ("g.csv", "task,group\na,x\na,y\n", "'a' twice"),
        ("g.csv", "task,group\na\n", "no group for 'a'"),
        ("g.txt", "a x", "ending in .json or .csv"),
    ],
)
def test_a_wrong_file_is_reported_in_one_line(tmp_path, name, text, message):
    (tmp_path / name).write_text(text)
    with pytest.raises(UserError, match=message) as error:
        read_grouping(str(tmp_path / name), NAMES)
    assert "\n" not in str(error.value)


def test_a_missing_file_is_reported_by_name():
    with pytest.raises(UserError, match=r"no such file"):
        read_grouping("nowhere.json", NAMES)
