"""Tests of the table of task ids."""

import json
import subprocess
import sys

import pytest

from poly_jax.data.quiet import seqio
from poly_jax.data.task_table import TaskTable
from poly_jax.errors import UserError

TABLE = TaskTable(("addition", "reversal", "sorting"))


def test_an_id_is_the_index_in_the_sorted_names():
    assert [TABLE.id(name) for name in TABLE.names] == [0, 1, 2]
    assert [TABLE.name(id) for id in range(len(TABLE))] == ["addition", "reversal", "sorting"]


def test_an_unknown_task_is_named_with_the_closest_known_task():
    with pytest.raises(UserError, match=r"'sortinq'.*did you mean 'sorting'"):
        TABLE.id("sortinq")


def test_an_unknown_name_in_a_long_table_is_answered_by_the_nearest_ones_and_the_place_of_all():
    table = TaskTable(tuple(f"skill_{letter}" for letter in "abcdefgh"))
    with pytest.raises(UserError, match=r"\(did you mean 'skill_h' or 'skill_g'\?\)"):
        table.id("skil_x")
    with pytest.raises(
        UserError, match=r"the nearest of 8 known names are 'skill_\w', .*; a run has all in "
    ):
        table.id("qqq")


@pytest.mark.parametrize("id", [-1, 3, 2**31])
def test_an_id_out_of_range_is_refused_and_not_clamped(id):
    with pytest.raises(UserError, match=rf"task id {id} is out of range.*0 to 2"):
        TABLE.name(id)


@pytest.mark.parametrize(
    ("names", "complaint"),
    [((), "got none"), (("b", "a"), "'a' comes after 'b'"), (("a", "a"), "'a' is there twice")],
)
def test_names_must_be_sorted_and_unique(names, complaint):
    with pytest.raises(UserError, match=complaint):
        TaskTable(names)


def test_a_saved_table_is_equal_after_loading(tmp_path):
    TABLE.save(tmp_path / "tasks.json")
    assert TaskTable.load(tmp_path / "tasks.json") == TABLE
    assert json.loads((tmp_path / "tasks.json").read_text())["tasks"] == ["addition", "reversal", "sorting"]


@pytest.mark.parametrize("content", ["{", "[]", '{"tasks": 3}', '{"tasks": [3]}', '{"names": []}'])
def test_a_file_that_does_not_hold_a_table_is_reported_by_name(tmp_path, content):
    (tmp_path / "tasks.json").write_text(content)
    with pytest.raises(UserError, match=r"tasks\.json.* holds no task table"):
        TaskTable.load(tmp_path / "tasks.json")


def test_a_missing_file_is_reported_by_name(tmp_path):
    with pytest.raises(UserError, match=r"there is no task table at .*absent\.json"):
        TaskTable.load(tmp_path / "absent.json")


def test_the_table_of_a_mixture_has_its_tasks_and_the_tasks_of_its_mixtures(plain_mixture, plain_task):
    plain_task("bee")
    seqio.MixtureRegistry.add("zoo", [("animals", 1.0), ("bee", 1.0)])
    assert TaskTable.of("zoo").names == ("ant", "bee", "cat", "owl")
    assert TaskTable.of("bee").names == ("bee",)


def test_an_unknown_mixture_is_named_with_the_closest_registered_mixture(plain_mixture):
    with pytest.raises(UserError, match=r"'anymals'.*did you mean 'animals'"):
        TaskTable.of("anymals")


def test_reading_a_table_does_not_import_tensorflow():
    program = (
        "import sys; import poly_jax.data.task_table; print({'tensorflow', 'seqio', 'jax'} & {*sys.modules})"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "set()"
