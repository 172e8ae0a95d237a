"""A checkpoint that builds on another's skills is used with exactly those skills, or refused."""

import contextlib
import shutil

import jax.numpy as jnp
import numpy as np
import pytest
from etils import epath

from poly_jax.data.task_table import TaskTable
from poly_jax.errors import UserError
from poly_jax.training.checkpoints import Checkpoints
from poly_jax.training.saved_step import Origin
from poly_jax.training.saved_steps import step_folder
from poly_jax.training.skills_below import check_resumed, on_skills_of, skills_below
from poly_jax.training.update import TrainState


def save(run, skills, logits):
    tree = {"encoder": {"query": {"skills": {"lora_a": jnp.array(skills)}, "router": {"logits": logits}}}}
    state = TrainState(jnp.int32(5), tree, {"steps": jnp.int32(5)})
    with contextlib.closing(Checkpoints(run)) as checkpoints:
        checkpoints.save(state, TaskTable(("a", "b")), Origin("backbone", "its hash"))
    return step_folder(run)


@pytest.fixture
def below(tmp_path):
    return save(tmp_path / "source", [[0.5, 1.0]], jnp.zeros(2))


STEP = epath.Path("runs/new/checkpoints/3")


def test_a_checkpoint_with_its_own_skills_builds_on_no_other():
    assert skills_below(Origin("backbone"), STEP) is None


def test_the_same_skills_are_found_even_if_the_router_has_changed(below, tmp_path):
    origin = on_skills_of(Origin("backbone", "its hash"), below)
    assert (origin.backbone, origin.backbone_hash) == ("backbone", "its hash")
    assert skills_below(origin, STEP) == below
    shutil.rmtree(tmp_path / "source")
    save(tmp_path / "source", [[0.5, 1.0]], jnp.ones(2))
    assert skills_below(origin, STEP) == below


def test_skills_that_have_changed_are_refused(below, tmp_path):
    origin = on_skills_of(Origin("backbone"), below)
    shutil.rmtree(tmp_path / "source")
    save(tmp_path / "source", np.array([[0.5, 1.5]], np.float32), jnp.zeros(2))
    with pytest.raises(UserError, match=r"source/checkpoints/5, and the skills there have changed since"):
        skills_below(origin, STEP)


def test_missing_skills_are_reported_by_name(below, tmp_path):
    origin = on_skills_of(Origin("backbone"), below)
    shutil.rmtree(tmp_path / "source")
    with pytest.raises(
        UserError, match=r"runs/new/checkpoints/3 trains .*source/checkpoints/5, which is gone"
    ):
        skills_below(origin, STEP)


def test_a_run_without_a_checkpoint_may_start_with_any_backbone(tmp_path):
    check_resumed(epath.Path(tmp_path / "new"), Origin("backbone", "a hash"))


def test_a_run_is_resumed_only_with_the_backbone_and_skills_that_it_was_trained_on(below, tmp_path):
    run = epath.Path(tmp_path / "source")
    # The path may differ, because only the contents are compared.
    check_resumed(run, Origin("elsewhere", "its hash"))
    with pytest.raises(
        UserError, match=r"elsewhere is not the backbone that .*source/checkpoints/5 was trained"
    ):
        check_resumed(run, Origin("elsewhere", "another hash"))
    with pytest.raises(UserError, match=r"the skills in there have changed since .* was trained on them"):
        check_resumed(run, Origin("backbone", "its hash", "there", "a hash"))
