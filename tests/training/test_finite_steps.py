"""A step whose numbers are not finite leaves the state as it was."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from poly_jax.errors import UserError
from poly_jax.training.finite_steps import FiniteSteps
from poly_jax.training.taken_steps import NotFiniteError, TakenSteps


def taken(steps, state, tiny, key, weights):
    """Take steps, whose loss weights are multiplied by the given factors."""
    function = jax.jit(steps)
    finite = []
    for number, weight in enumerate(weights, 1):
        batch = {
            **tiny.batch,
            "decoder_loss_weights": tiny.batch["decoder_loss_weights"] * np.float32(weight),
        }
        state, metrics = function(state, tiny.frozen, batch, key, np.int32(number))
        finite.append(bool(metrics["finite"]))
    return state, finite


def equal(tree, other):
    jax.tree.map(np.testing.assert_array_equal, tree, other)


def test_finite_steps_are_those_of_the_update(tiny, update_of, initial, key):
    update = update_of()
    state, finite = taken(FiniteSteps(update), initial(update), tiny, key, [1, 1])
    expected = initial(update)
    for _ in range(2):
        batch = {
            **tiny.batch,
            "decoder_loss_weights": tiny.batch["decoder_loss_weights"] * np.float32(1),
        }
        expected, _ = jax.jit(update)(expected, tiny.frozen, batch, key)
    assert finite == [True, True]
    equal(state, expected)


def test_after_a_step_that_is_not_finite_the_state_stays_at_the_last_finite_one(
    tiny, update_of, initial, key
):
    steps = FiniteSteps(update_of())
    one, _ = taken(steps, initial(steps.update), tiny, key, [1])
    state, finite = taken(steps, initial(steps.update), tiny, key, [1, np.nan, 1])
    assert finite == [True, False, True]
    assert int(state.step) == 1
    equal(state, one)


def test_a_skipped_step_counts_and_changes_nothing_else(tiny, update_of, initial, key):
    steps = FiniteSteps(update_of(), "skip")
    state, finite = taken(steps, initial(steps.update), tiny, key, [np.inf, np.nan])
    assert finite == [False, False]
    assert int(state.step) == 2
    equal(state.trained, initial(steps.update).trained)


def test_whether_a_step_is_taken_is_known_before_its_state_is_computed(tiny, update_of, initial, key):
    """XLA then writes the new state over the old one; a look at the new state would need room for both."""
    steps = FiniteSteps(update_of())
    lowered = jax.jit(steps).lower(initial(steps.update), tiny.frozen, tiny.batch, key, np.int32(1))
    looked_at = re.findall(r"stablehlo.is_finite .*: \(tensor<(.*)>\) ->", lowered.as_text())
    # The other one is the largest logit of every position, in the loss.
    assert sorted(looked_at) == ["40xf32", "f32", "f32"]


def test_the_new_state_is_written_over_the_old_one_without_a_copy(tiny, update_of, initial, key):
    """A choice of each array on its own kept copies of the old moments, twice the adapters' size."""
    steps = FiniteSteps(update_of())
    state = initial(steps.update)
    given = state, tiny.frozen, tiny.batch, key, np.int32(1)
    program = jax.jit(steps, donate_argnums=0).lower(*given).compile().as_text()
    trained = {leaf.shape for leaf in jax.tree.leaves(state.trained)}
    copied = re.findall(r"f32\[([\d,]+)\]\S* copy\(", program)
    assert not [shape for shape in copied if tuple(map(int, shape.split(","))) in trained]


def test_means_leave_skipped_steps_out_and_count_them():
    steps = TakenSteps("skip")
    for step, (loss, finite) in enumerate([(1.0, True), (np.nan, False), (4.0, True)], 1):
        steps.add(step, {"loss": jnp.float32(loss), "finite": finite}, {})
    steps.settle(but=0)
    assert steps.means() == {"loss": 2.5, "skipped_steps": 1.0}


def test_a_run_whose_every_step_is_skipped_ends():
    steps = TakenSteps("skip")
    steps.add(1, {"loss": np.nan, "finite": False}, {})
    steps.settle(but=0)
    with pytest.raises(UserError, match="none of the last 1 steps is finite"):
        steps.means()


def test_the_last_step_need_not_be_waited_for():
    steps = TakenSteps("stop")
    steps.add(1, {"loss": 1.0, "finite": True}, {})
    steps.add(2, {"loss": np.inf, "finite": False}, {"task_ids": np.array([3, 1, 3])})
    steps.settle(but=1)
    with pytest.raises(NotFiniteError) as error:
        steps.settle(but=0)
    assert (error.value.step, error.value.tasks(), error.value.described()) == (2, [1, 3], "loss inf")


def test_the_norm_of_the_gradients_is_computed_once(tiny, update_of, initial, key):
    """The clipping stands in a branch, where XLA would not find that the metrics have the norm already."""
    steps = FiniteSteps(update_of())
    state = initial(steps.update)
    traced = jax.make_jaxpr(steps)(state, tiny.frozen, tiny.batch, key, np.int32(1))
    choices = [equation for equation in traced.eqns if equation.primitive.name == "cond"]
    (update,) = [str(branch) for branch in choices[-1].params["branches"] if "sqrt" in str(branch)]
    assert "reduce_sum" not in update
