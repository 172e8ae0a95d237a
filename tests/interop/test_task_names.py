"""Tasks keep their rows when their names are sorted."""

import numpy as np
import pytest

from poly_jax.errors import UserError
from poly_jax.interop.task_names import numbered, read_names, sorted_by_task


@pytest.mark.parametrize("text", ['["b", "a"]', '{"tasks": ["b", "a"]}', "b\n a \n\n"])
def test_names_are_read_from_json_or_from_lines(tmp_path, text):
    (tmp_path / "names").write_text(text)
    assert read_names(tmp_path / "names", 2) == ["b", "a"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a", "has 1 name, and 2 are needed"),
        ("a\na", "names 'a' twice"),
        ("[1, 2]", "does not hold a list of names"),
        ("[", "is not valid JSON"),
    ],
)
def test_wrong_names_are_refused(tmp_path, text, message):
    (tmp_path / "names").write_text(text)
    with pytest.raises(UserError, match=message):
        read_names(tmp_path / "names", 2)


def test_a_missing_file_of_names_is_reported_by_name(tmp_path):
    with pytest.raises(UserError, match="names cannot be read as names of tasks"):
        read_names(tmp_path / "names", 2)


def test_generated_names_sort_in_the_order_of_their_numbers():
    names = numbered(101)
    assert names[7] == "task_007"
    assert names == sorted(names)


def test_router_rows_move_with_their_names_and_skills_stay():
    tree = {
        "a": {"router": {"logits": np.arange(3)[:, None, None]}, "skills": {"lora_a": np.arange(3)[None]}}
    }
    got, names = sorted_by_task(tree, ["c", "a", "b"], owned=False)
    assert names == ("a", "b", "c")
    assert got["a"]["router"]["logits"].ravel().tolist() == [1, 2, 0]
    assert got["a"]["skills"]["lora_a"].ravel().tolist() == [0, 1, 2]


def test_private_skills_move_with_their_tasks():
    tree = {"a": {"skills": {"lora_a": np.arange(3)[None]}}}
    got, _ = sorted_by_task(tree, ["c", "a", "b"], owned=True)
    assert got["a"]["skills"]["lora_a"].ravel().tolist() == [1, 2, 0]
