"""Tests of reading the original task files."""

import json

import pytest
from etils import epath

from poly_jax.errors import UserError
from poly_jax.tasks.super_natural_instructions.reading import read_names, read_task


def read(tmp_path, content):
    path = epath.Path(tmp_path) / "task7_sums.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return read_task(path)


def test_the_fields_of_a_file_are_stripped(tmp_path, task_file):
    content = task_file(2, Definition=[" First. ", "Second."])
    content["Instances"][0] = {"input": " in\n", "output": [" out ", "other"]}
    task = read(tmp_path, content)
    assert task.definition == "First."
    assert task.categories == ("Question Answering",)
    assert task.demonstrations == (("one?", "1"), ("two", "2."), ("three", "3"))
    assert [instance.input for instance in task.instances] == ["in", "question 1"]
    assert [instance.references for instance in task.instances] == [("out", "other"), ("answer 1", "reply 1")]
    assert [instance.id for instance in task.instances] == ["task7_sums-0", "id-1"]


def test_the_older_format_has_plain_texts(tmp_path):
    task = read(tmp_path, {"Definition": "Add.", "Instances": [{"input": "1+1", "output": "2"}]})
    assert task.definition == "Add."
    assert task.instances[0].references == ("2",)
    assert task.demonstrations == task.categories == ()


def test_broken_json_is_named_with_its_position(tmp_path):
    with pytest.raises(
        UserError, match=r"task7_sums\.json is not valid JSON \(Expecting .,. delimiter: line 3 column 2 "
    ):
        read(tmp_path, '{\n "Definition": "Add."\n "Instances": []\n}')


def test_text_that_is_not_utf8_is_named_with_its_position(tmp_path):
    (tmp_path / "task8.json").write_bytes(b'{"Definition": "caf\xe9"}')
    with pytest.raises(UserError, match=r"task8\.json is not UTF-8 text \(.* at byte 19\)"):
        read_task(epath.Path(tmp_path) / "task8.json")


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"Definition": None}, r"field 'Definition' must be a text or a list of texts, got None"),
        ({"Definition": []}, r"field 'Definition' must be"),
        ({"Instances": {}}, r"field 'Instances' must be a list"),
        ({"Instances": []}, r"the file has no instance in 'Instances'"),
        ({"Instances": ["text"]}, r"'Instances' number 1 is not a JSON object"),
        ({"Instances": [{"input": "x"}]}, r"'Instances' number 1 has no field 'output'"),
        ({"Instances": [{"input": "x", "output": []}]}, r"'Instances' number 1 field 'output' must be"),
        (
            {"Instances": [{"id": True, "input": "x", "output": "y"}]},
            r"'Instances' number 1 field 'id' must be",
        ),
        ({"Categories": 3}, r"field 'Categories' must be a text or a list of texts, got 3"),
        ({"Positive Examples": [{"input": "x"}]}, r"'Positive Examples' number 1 has no field 'output'"),
    ],
)
def test_a_wrong_field_is_reported_by_name(tmp_path, task_file, change, complaint):
    with pytest.raises(UserError, match=rf"task7_sums\.json: {complaint}"):
        read(tmp_path, task_file(1, **change))


@pytest.mark.parametrize("field", ["Definition", "Instances"])
def test_a_missing_field_is_reported_by_name(tmp_path, task_file, field):
    content = task_file(1)
    del content[field]
    with pytest.raises(UserError, match=rf"task7_sums\.json: the file has no field '{field}'"):
        read(tmp_path, content)


def test_a_file_that_does_not_hold_an_object_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"task7_sums\.json: the file is not a JSON object"):
        read(tmp_path, [1, 2])


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("[" * 100_000, "nests JSON deeper than 100 levels"),
        ('{"Definition": "half a \\ud83d pair", "Instances": []}', "half of a surrogate pair"),
        ('{"Definition": "a", "Definition": "b", "Instances": []}', "the key 'Definition' twice"),
        ('{"Definition": "a", "Instances"', "is not valid JSON"),
    ],
)
def test_hostile_json_is_refused_with_the_name_of_its_file(tmp_path, content, complaint):
    with pytest.raises(UserError, match=rf"task7_sums\.json .*{complaint}"):
        read(tmp_path, content)


def test_names_are_the_lines_that_are_not_blank(tmp_path):
    (tmp_path / "train_tasks.txt").write_text("task2_b\r\ntask1_a \n\n")
    assert read_names(epath.Path(tmp_path) / "train_tasks.txt") == ["task2_b", "task1_a"]


def test_a_missing_list_of_tasks_is_reported_by_name(tmp_path):
    with pytest.raises(UserError, match=r"no list of tasks at .*test_tasks\.txt"):
        read_names(epath.Path(tmp_path) / "test_tasks.txt")


def test_every_real_file_is_read(shared_data):
    paths = sorted((epath.Path(shared_data) / "sni" / "tasks").glob("*.json"))
    files = [read_task(path) for path in paths]
    assert len(files) == 97
    # The counts were made from the files with another program.
    assert sum(len(file.instances) for file in files) == 10277
    assert sum(len(instance.references) > 1 for file in files for instance in file.instances) == 1228


def test_a_line_that_is_too_long_for_a_name_is_shown_in_part(tmp_path):
    (tmp_path / "train_tasks.txt").write_text("task1_a\n" + "x" * 10_000)
    with pytest.raises(UserError, match=r"train_tasks.txt, line 2: 'x{40,60} is too long") as error:
        read_names(epath.Path(tmp_path) / "train_tasks.txt")
    assert len(str(error.value)) < 500
