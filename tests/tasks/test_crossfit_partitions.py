"""Partitions of CrossFit's tasks are read from their files, in the order of their lists."""

import json

import pytest
from etils import epath

from poly_jax.errors import UserError
from poly_jax.tasks.crossfit import task_names
from poly_jax.tasks.crossfit.partitions import SIZES, read_partition
from poly_jax.tasks.crossfit.task_metrics import METRIC_OF_TASK, MULTIPLE_CHOICE


@pytest.fixture
def write(tmp_path):
    """A function that writes a partition, and returns the folder."""

    def write(name="mine", place="splits", **parts):
        (tmp_path / place).mkdir(parents=True, exist_ok=True)
        content = {"train": [], "dev": [], "test": [], **parts}
        (tmp_path / place / f"{name}.json").write_text(json.dumps(content))
        return epath.Path(tmp_path)

    return write


@pytest.mark.parametrize("place", ["splits", "dataloader/custom_tasks_splits"])
def test_a_partition_keeps_the_order_of_its_lists(write, place):
    found = read_partition(write(place=place, train=["b-x", "a", "c"], dev=["e", "d"]), "mine")
    assert found.train == ("b-x", "a", "c")
    assert found.in_order("train", "sorted") == ("a", "b-x", "c")
    assert found.test == ()


def test_without_test_tasks_the_dev_tasks_are_held_out(write):
    assert read_partition(write(train=["a"], dev=["d"]), "mine").held_out == ("d",)
    assert read_partition(write(train=["a"], dev=["d"], test=["t"]), "mine").held_out == ("t",)


def test_a_held_out_task_that_is_trained_on_is_found(write):
    assert read_partition(write(train=["a", "b"], dev=["a"], test=["c", "b"]), "mine").leaked == ("b",)
    assert read_partition(write(train=["a", "b"], dev=["c", "b"]), "mine").leaked == ("b",)


def test_names_for_an_import_are_in_the_order_of_the_list_unless_asked_otherwise(write):
    folder = write(train=["b-x", "a"], test=["t"])
    assert task_names(folder, "mine") == ["crossfit_b_x", "crossfit_a"]
    assert task_names(folder, "mine", order="sorted", prefix="p") == ["p_a", "p_b_x"]
    assert task_names(folder, "mine", "test") == ["crossfit_t"]
    with pytest.raises(UserError, match="the order of tasks is 'random'; use 'list' or 'sorted'"):
        task_names(folder, "mine", order="random")
    with pytest.raises(UserError, match="'eval' is not a part of a partition; use 'train', 'dev', 'test'"):
        task_names(folder, "mine", "eval")


def test_an_unknown_partition_gets_a_suggestion(write):
    with pytest.raises(UserError, match=r"no partition at .*splits/minr\.json; did you mean 'mine'"):
        read_partition(write(), "minr")


@pytest.mark.parametrize(
    ("parts", "complaint"),
    [
        ({"train": ["a", "b", "a"]}, "task 'a' is twice in 'train'"),
        ({"dev": "a"}, "dev"),
        ({"dev": [1]}, "dev"),
    ],
)
def test_a_broken_partition_is_refused(write, parts, complaint):
    with pytest.raises(UserError, match=rf"mine\.json.*{complaint}"):
        read_partition(write(**parts), "mine")


def test_a_published_name_needs_the_published_size(write):
    with pytest.raises(
        UserError, match=r"random\.json has \(1, 0, 0\) .* published partition has \(120, 20, 2"
    ):
        read_partition(write("random", train=["a"]), "random")


def test_the_eight_real_partitions_have_their_published_sizes(shared_data):
    folder = epath.Path(shared_data) / "crossfit"
    read = {name: read_partition(folder, name) for name in SIZES}
    assert len(read) == 8
    everything = set(read["random"].train + read["random"].dev + read["random"].test)
    assert everything == set(METRIC_OF_TASK)
    assert len(everything) == 160
    # The published lists of this partition share a task.
    assert {name: found.leaked for name, found in read.items() if found.leaked} == {
        "train_non_nli_test_nli": ("sick",)
    }
    # The list starts with this task; sorted names start with another.
    assert read["random"].train[0] == "glue-mrpc"
    assert read["random"].in_order("train", "sorted")[0] == "acronym_identification"
    held_out = {read[f"train_{kind}_test_classification"].test for kind in ("classification", "halfhalf")}
    assert held_out == {read["train_nonclassification_test_classification"].test}
    assert set(read["train_non_multiple_choice_qa_test_multiple_choice"].dev) == MULTIPLE_CHOICE


def test_every_task_has_its_published_metric(shared_data):
    published = json.loads((shared_data / "crossfit" / "metrics_160.json").read_text())
    assert dict(METRIC_OF_TASK) == published
