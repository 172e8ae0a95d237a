"""A checkpoint with a truncated, empty, altered or missing file is refused in one line."""

import contextlib
import dataclasses
import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from poly_jax.data.task_table import TaskTable
from poly_jax.errors import UserError
from poly_jax.training.checkpoints import Checkpoints
from poly_jax.training.retention import Score
from poly_jax.training.saved_step import Origin, open_trained, read_onto, read_origin, read_score, read_table
from poly_jax.training.saved_steps import step_folder
from poly_jax.training.update import TrainState

TABLE = TaskTable(("a", "b"))
DAMAGED = "the step's folder is incomplete or damaged: copy it again, or give an earlier step"


def state_of(seed):
    key = jax.random.key(seed)
    trained = {"encoder": {"skills": {"lora_a": jax.random.normal(key, (3, 4)), "lora_b": jnp.zeros((4, 3))}}}
    return TrainState(jnp.int32(7), trained, optax.adam(0.1).init(trained))


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    run = tmp_path_factory.mktemp("saved") / "run"
    with contextlib.closing(Checkpoints(run)) as checkpoints:
        checkpoints.save(state_of(1), TABLE, Origin("backbone", "its hash"))
    return run


@pytest.fixture
def run(saved, tmp_path):
    shutil.copytree(saved, tmp_path / "run")
    return tmp_path / "run"


def restore(run):
    with contextlib.closing(Checkpoints(run)) as checkpoints:
        return checkpoints.restore(state_of(2), TABLE)


def test_a_state_is_restored_bit_for_bit_into_the_structure_of_another(run):
    restored, expected = restore(run), state_of(1)
    assert jax.tree.structure(restored) == jax.tree.structure(expected)
    for got, leaf in zip(jax.tree.leaves(restored), jax.tree.leaves(expected), strict=True):
        np.testing.assert_array_equal(got, leaf)
        assert (got.dtype, got.sharding) == (leaf.dtype, leaf.sharding)


def test_parameters_are_cast_to_the_requested_dtype(run):
    tensors = open_trained(step_folder(run))
    place = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    shape = jax.ShapeDtypeStruct((3, 4), jnp.bfloat16)
    (array,) = read_onto(tensors, {"encoder/skills/lora_a": shape}, {"encoder/skills/lora_a": place}).values()
    expected = state_of(1).trained["encoder"]["skills"]["lora_a"].astype(jnp.bfloat16)
    np.testing.assert_array_equal(array, expected)


@pytest.mark.parametrize("item", ["trained", "optimizer"])
@pytest.mark.parametrize("file", ["_METADATA", "manifest.ocdbt"])
@pytest.mark.parametrize("damage", ["missing", "empty", "cut", "text"])
def test_a_damaged_index_is_reported_by_name(run, item, file, damage):
    path = step_folder(run) / item / file
    content = path.read_bytes()
    path.unlink()
    if damage != "missing":
        path.write_bytes({"empty": b"", "cut": content[: len(content) // 2], "text": b"a text"}[damage])
    with pytest.raises(UserError, match=DAMAGED) as error:
        restore(run)
    assert str(step_folder(run) / item) in str(error.value)
    assert "\n" not in str(error.value)


def test_missing_data_files_are_reported(run):
    step = step_folder(run)
    shutil.rmtree(step / "optimizer" / "d")
    with pytest.raises(UserError, match=rf"of .*/7/optimizer cannot be read, {DAMAGED}"):
        restore(run)


def test_a_missing_item_is_reported(run):
    for item in ("origin", "tasks", "trained"):
        shutil.move(step_folder(run) / item, run / item)
        with pytest.raises(UserError, match=r"missing|holds no checkpoint|damaged"):
            restore(run) if item != "origin" else read_origin(run / "checkpoints" / "7")
        shutil.move(run / item, run / "checkpoints" / "7" / item)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is not valid JSON"),
        (b'{"backbone": "x"', "is not valid JSON"),
        (b"[]", "holds a list where an object is needed"),
        (b'{"backbone": 3}', "backbone is 3, and it must be a text"),
        (b'{"backbone": "a\\u0000b"}', "backbone is 'a.x00b', which is not a path or a hash"),
        (b'{"backbones": "x"}', "has the unknown field 'backbones'"),
        (b"\xff", "is not UTF-8 text"),
        (b"[" * 100_000, "nests JSON deeper"),
    ],
)
def test_a_damaged_origin_is_reported_by_name(run, content, message):
    path = step_folder(run) / "origin" / "metadata"
    path.write_bytes(content)
    with pytest.raises(
        UserError, match=f"7/origin/metadata.* {message}|7/origin/metadata: {message}"
    ) as error:
        read_origin(step_folder(run))
    assert str(error.value).endswith(DAMAGED)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({}, "holds an object where a list is needed"),
        (["a", 3], "item 1 is 3, and it must be a text"),
        ([], "at least one task name"),
        (["b", "a"], "sorted and unique"),
    ],
)
def test_a_damaged_task_table_is_reported_by_name(run, content, message):
    path = step_folder(run) / "tasks" / "metadata"
    path.write_text(json.dumps(content))
    with pytest.raises(UserError, match=f"7/tasks/metadata.*{message}") as error:
        read_table(step_folder(run))
    assert str(error.value).endswith(DAMAGED)


def test_parameters_with_other_names_or_shapes_are_refused(run):
    other = state_of(2)
    other.trained["encoder"]["skills"]["lora_a"] = jnp.zeros((5, 4))
    with (
        contextlib.closing(Checkpoints(run)) as checkpoints,
        pytest.raises(UserError, match="of another shape"),
    ):
        checkpoints.restore(other, TABLE)


def test_a_checkpoint_counts_as_one_of_an_earlier_version_only_where_its_list_of_items_has_no_checksums(run):
    step = step_folder(run)
    shutil.rmtree(step / "checksums")
    with pytest.raises(UserError, match=DAMAGED):
        restore(run)
    manifest = step / "_CHECKPOINT_METADATA"
    listed = json.loads(manifest.read_text())
    manifest.unlink()
    with pytest.raises(UserError, match=rf"_CHECKPOINT_METADATA.*{DAMAGED}"):
        restore(run)
    manifest.write_text(json.dumps({**listed, "item_handlers": None}))
    with pytest.raises(UserError, match=rf"item_handlers.*{DAMAGED}"):
        restore(run)
    del listed["item_handlers"]["checksums"]
    manifest.write_text(json.dumps(listed))
    assert restore(run) is not None


def test_a_score_that_is_added_to_a_checkpoint_is_read_and_verified_like_one_that_was_saved_with_it(run):
    with contextlib.closing(Checkpoints(run, keep_best="mean/accuracy")) as checkpoints:
        checkpoints.add_score(7, 12.5)
        assert not checkpoints.is_best(12.5)
    assert read_score(step_folder(run)) == Score("mean/accuracy", 12.5)
    assert restore(run) is not None
    path = step_folder(run) / "score" / "metadata"
    path.write_text(path.read_text().replace("12.5", "13.5"))
    with pytest.raises(UserError, match=f"7/score/metadata has changed since it was saved; {DAMAGED}"):
        read_score(step_folder(run))


@pytest.mark.parametrize("where", ["here", "on another host"])
def test_hosts_go_on_from_the_newest_checkpoint_that_all_of_them_can_read(tmp_path, monkeypatch, where):
    """Every host asks the others once for each checkpoint, also a host that cannot read it."""
    with contextlib.closing(Checkpoints(tmp_path)) as written:
        for step in (7, 8):
            written.save(dataclasses.replace(state_of(step), step=jnp.int32(step)), TABLE, Origin())
    if where == "here":
        (tmp_path / "checkpoints/8/tasks/metadata").unlink()
    asked = []

    def any_host(mesh, failed):
        asked.append(failed)
        return failed or (where == "on another host" and len(asked) == 1)

    monkeypatch.setattr("poly_jax.training.checkpoints.any_host", any_host)
    assert restore(tmp_path).step == 7
    assert asked == [where == "here", False]
