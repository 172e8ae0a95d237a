"""The newest checkpoints of a run are kept, and the best by a metric."""

import contextlib
import json

import jax.numpy as jnp
import optax
import pytest
from etils import epath

from poly_jax.data.task_table import TaskTable
from poly_jax.errors import UserError
from poly_jax.training.checkpoints import Checkpoints
from poly_jax.training.periodic_evaluation import score_named
from poly_jax.training.retention import Score, best_step
from poly_jax.training.saved_step import Origin, damage, read_score
from poly_jax.training.saved_steps import best_checkpoint, saved_steps
from poly_jax.training.update import TrainState

METRIC = "mean/accuracy"
TABLE = TaskTable(("a", "b"))


def saves(run, values, keep=2, metric=METRIC):
    """Save a checkpoint for every step from 1, with these values of the metric; return what is kept."""
    with contextlib.closing(Checkpoints(run, keep, metric)) as checkpoints:
        for step, value in values.items():
            checkpoints.save(state_at(step), TABLE, Origin(), value)
    return set(saved_steps(run))


def state_at(step):
    trained = {"encoder": {"skills": {"lora_a": jnp.full((2, 3), float(step))}}}
    return TrainState(jnp.int32(step), trained, optax.adam(0.1).init(trained))


@pytest.fixture
def run(tmp_path):
    return epath.Path(tmp_path / "run")


def test_the_best_checkpoint_stays_beside_the_newest(run):
    assert saves(run, {1: 0.5, 2: 0.9, 3: 0.7, 4: None, 5: 0.2, 6: 0.1}) == {2, 5, 6}
    folder, score = best_checkpoint(run, METRIC)
    assert (folder, score) == (run / "checkpoints" / "2", Score(METRIC, 0.9))
    assert read_score(run / "checkpoints" / "6") == Score(METRIC, 0.1)


def test_a_run_that_goes_on_knows_its_best_checkpoint(run):
    saves(run, {1: 0.5, 2: 0.9, 3: 0.1, 4: 0.2})
    with contextlib.closing(Checkpoints(run, 2, METRIC)) as checkpoints:
        assert not checkpoints.is_best(0.9)
        assert checkpoints.is_best(0.91)
    assert saves(run, {5: 0.3, 6: 0.4}) == {2, 5, 6}
    assert saves(run, {7: 0.95, 8: None, 9: None}) == {7, 8, 9}


def test_without_a_metric_only_the_newest_are_kept_and_no_score_is_written(run):
    assert saves(run, {1: 0.5, 2: 0.9, 3: 0.1, 4: 0.2}, metric=None) == {3, 4}
    assert not (run / "checkpoints" / "4" / "score").exists()
    assert best_checkpoint(run, METRIC) is None


def test_values_of_another_metric_are_not_compared(run):
    saves(run, {1: 100.0, 2: None})
    assert saves(run, {3: 0.1, 4: 0.2, 5: None, 6: None}, metric="mean/rouge") == {4, 5, 6}


def test_the_first_of_equally_good_steps_is_the_best():
    assert best_step({3: Score("m", 1.0), 2: Score("m", 1.0), 1: Score("m", 0.5)}, "m") == 2
    assert best_step({1: Score("n", 1.0)}, "m") is None


def test_a_score_that_was_changed_counts_as_damage(run):
    saves(run, {1: 0.5})
    step = run / "checkpoints" / "1"
    assert damage(step) is None
    path = step / "score" / "metadata"
    path.write_text(json.dumps({"metric": METRIC, "value": 0.75}))
    assert "score/metadata has changed since it was saved" in damage(step)
    # A run that goes on does without it.
    with contextlib.closing(Checkpoints(run, 2, METRIC)) as checkpoints:
        assert checkpoints.is_best(0.1)


def test_the_metric_is_found_by_its_name_or_refused_with_the_closest_names():
    scores = {"eval/mean/accuracy": 0.5, "eval/a/accuracy": float("nan")}
    assert score_named("mean/accuracy", scores) == 0.5
    assert score_named("a/accuracy", scores) is None
    with pytest.raises(UserError, match=r"'mean/acuracy', and .* no such metric; did you mean 'mean/accura"):
        score_named("mean/acuracy", scores)
    with pytest.raises(UserError, match=r"it has a/accuracy, mean/accuracy"):
        score_named("x", scores)
