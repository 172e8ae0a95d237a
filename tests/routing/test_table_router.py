"""The expert baseline: mixing weights from a table of tasks by skills, looked up by task name."""

import json

import numpy as np
import pytest

from poly_jax.adapters.config import Adapters
from poly_jax.adapters.lora import LoRA
from poly_jax.errors import UserError
from poly_jax.routing.router import Sizes
from poly_jax.routing.table import TableRouter

TABLE = {"sum": [1, 1, 0], "add": [0, 0, 4], "mul": [1, 2, 1], "new": [0.5, 0, 0]}
EXPECTED = {"sum": [0.5, 0.5, 0], "add": [0, 0, 1], "mul": [0.25, 0.5, 0.25], "new": [1, 0, 0]}


@pytest.fixture(params=["t.json", "t.csv", "t.npz"])
def path(request, tmp_path):
    path = tmp_path / request.param
    if path.suffix == ".json":
        path.write_text(json.dumps(TABLE))
    elif path.suffix == ".csv":
        lines = ["task,one,two,three", *(f"{name},{','.join(map(str, row))}" for name, row in TABLE.items())]
        path.write_text("\n".join(lines) + "\n")
    else:
        np.savez(path, tasks=np.array(list(TABLE)), weights=np.array(list(TABLE.values())))
    return str(path)


def bound(path, names):
    adapters = Adapters(LoRA(), TableRouter(path), n_tasks=len(names), n_skills=8)
    return adapters.for_tasks(names)


def test_rows_are_looked_up_by_name_and_normalised_for_every_head(path):
    adapters = bound(path, ("add", "mul", "sum"))
    assert (adapters.inventory_size, adapters.n_tasks) == (3, 3)
    weights = adapters.router.weights({}, np.array([2, 0, 1, 2]), Sizes(3, 2, 3), None)
    for row, name in zip(weights, ("sum", "add", "mul", "sum"), strict=True):
        np.testing.assert_allclose(row, [EXPECTED[name]] * 2, rtol=1e-6)
    assert adapters.router.parameters(Sizes(3, 2, 3)) == {}


def test_the_number_of_skills_comes_from_the_table_before_the_tasks_are_known(path):
    assert Adapters(LoRA(), TableRouter(path), n_tasks=2, n_skills=8).inventory_size == 3


def test_a_new_task_uses_its_row_of_the_same_table(path):
    old = bound(path, ("add", "mul", "sum"))
    new = old.for_tasks(["new"])
    np.testing.assert_allclose(new.router.weights({}, np.array(0), Sizes(1, 1, 3), None), [EXPECTED["new"]])


def test_a_task_without_a_row_is_named_with_the_closest_names(path):
    with pytest.raises(UserError, match=r"no row for 2 tasks, such as 'summ'; did you mean 'sum'") as caught:
        bound(path, ("add", "summ", "xyzzy"))
    assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match="such as 'xyzzy'; add a row"):
        bound(path, ("xyzzy",))


@pytest.mark.parametrize(
    ("name", "text", "named"),
    [
        ("t.json", '{"a": [1, 2], "b": [1]}', r"'b' has 1 weight, and 'a' has 2"),
        ("t.json", '{"a": [1, -2]}', r"weights of 'a' are \[1.0, -2.0\]; they are at least 0"),
        ("t.json", '{"a": [0, 0]}', r"weights of 'a' are \[0.0, 0.0\]"),
        ("t.json", '{"a": [NaN, 1]}', "weights of 'a' are"),
        ("t.json", '{"a": [1], "a": [2]}', "'a' is there twice"),
        ("t.json", '{"a": 3}', "the row of 'a' is 3, not a list of numbers"),
        ("t.json", '{"a": ["x"]}', "not a list of numbers"),
        ("t.json", "[[1, 2]]", "it does not hold an object"),
        ("t.json", '{"a": [1,', "is not a table of tasks by skills"),
        ("t.json", "{}", "has no task"),
        ("t.csv", "task,one\na,1\nb,much\n", r"the row of 'b' is \['much'\]"),
        ("t.csv", "task,one,two\na,1\nb,1,2\n", r"'b' has 2 weights, and 'a' has 1"),
        ("t.npz", "no zip file", "is not a table of tasks by skills"),
        ("t.txt", "", "use a file ending in .json, .csv, .npz"),
    ],
)
def test_a_broken_table_is_reported_in_one_line(tmp_path, name, text, named):
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises(UserError, match=named) as caught:
        bound(str(path), ("a",))
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("arrays", "named"),
    [
        ({"weights": np.ones((2, 3))}, "is not a table"),
        (
            {"tasks": np.array(["a", "b"]), "weights": np.ones((3, 2))},
            r"weights are \[3, 2\], and there are 2",
        ),
        ({"tasks": np.array(["a"], object), "weights": np.ones((1, 2))}, "is not a table"),
    ],
)
def test_a_wrong_npz_is_reported_in_one_line_and_no_pickle_is_opened(tmp_path, arrays, named):
    np.savez(tmp_path / "t.npz", **arrays)
    with pytest.raises(UserError, match=named):
        bound(str(tmp_path / "t.npz"), ("a",))


def test_a_missing_file_and_an_unbound_path_are_reported_by_name(tmp_path):
    with pytest.raises(UserError, match="there is no such file"):
        bound(str(tmp_path / "none.csv"), ("a",))
    with pytest.raises(UserError, match=r"TableRouter\.path is not bound"):
        TableRouter()


def test_rows_given_by_id_need_no_file_and_must_match_the_number_of_tasks():
    router = TableRouter(rows=[[1, 3], [2, 0]])
    assert hash(router) == hash(TableRouter(rows=((1.0, 3.0), (2.0, 0.0))))
    np.testing.assert_allclose(
        router.weights({}, np.array([1, 0]), Sizes(2, 1, 2), None)[:, 0], [[1, 0], [0.25, 0.75]]
    )
    with pytest.raises(UserError, match="has 2 rows for 3 tasks"):
        router.for_tasks(("a", "b", "c"))
    with pytest.raises(UserError, match=r"TableRouter.rows: 'task 1' has 1 weight"):
        TableRouter(rows=[[1, 3], [2]])


def test_weights_before_the_task_names_are_known_are_refused():
    with pytest.raises(UserError, match=r"looks its rows up by task name; call Adapters\.for_tasks"):
        TableRouter("t.csv").weights({}, np.array(0), Sizes(1, 1, 2), None)
