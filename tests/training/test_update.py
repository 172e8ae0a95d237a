"""One training step: what it changes, what it leaves unchanged, and what its random numbers depend on."""

import dataclasses

import jax
import numpy as np
import pytest

from poly_jax.training.optimizer import Optimizer
from poly_jax.weights.parameter_names import is_router


@pytest.fixture(scope="module")
def stepped(tiny, update_of, initial, key):
    """An update, the jitted update, and the state and metrics after the first step."""
    update = update_of()
    step = jax.jit(update)
    return update, step, *step(initial(update), tiny.frozen, tiny.batch, key)


def assert_trees_equal(got, expected):
    jax.tree.map(np.testing.assert_array_equal, got, expected)


def assert_trees_close(got, expected, tolerance):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance), got, expected)


def test_only_skills_and_routers_change_and_all_of_them_do(tiny, stepped, flat):
    _, _, state, _ = stepped
    before, after = flat(tiny.trained), flat(state.trained)
    assert set(before) == set(after)
    assert {name.split("/")[-2] for name in after} == {"skills", "router"}
    assert len(after) == 6
    for name, leaf in after.items():
        # The batch has no example of task 3, so its rows of the router do not change.
        rows = slice(0, 3) if is_router(name) else slice(None)
        assert (leaf[rows] != before[name][rows]).all(), name
        if is_router(name):
            np.testing.assert_array_equal(leaf[3], before[name][3])
    assert int(state.step) == 1


def test_the_frozen_tree_is_bit_equal_after_steps(tiny, stepped, key, flat):
    _, step, state, _ = stepped
    before = {name: leaf.copy() for name, leaf in flat(tiny.frozen).items()}
    on_device = jax.device_put(tiny.frozen)
    for _ in range(2):
        state, _ = step(state, on_device, tiny.batch, key)
    assert_trees_equal(flat(on_device), before)
    # The optimizer has no state for the frozen tree: only two moments of the trained leaves, and counters.
    sizes = sum(leaf.size for leaf in jax.tree.leaves(state.optimizer) if leaf.ndim)
    assert sizes == 2 * sum(leaf.size for leaf in jax.tree.leaves(tiny.trained))


def test_the_learning_rate_of_routers_is_a_hundred_times_that_of_skills(tiny, stepped, flat):
    _, _, state, _ = stepped
    before, after = flat(tiny.trained), flat(state.trained)
    sizes = {True: [], False: []}
    for name, leaf in after.items():
        moves = np.abs(leaf - before[name])
        sizes[is_router(name)].append(np.median(moves[:3] if is_router(name) else moves))
    # AdamW's first step equals the learning rate if the gradient is far above its epsilon.
    np.testing.assert_allclose(sizes[True], 0.1, rtol=1e-2)
    np.testing.assert_allclose(sizes[False], 1e-3, rtol=1e-2)


def test_microbatches_add_up_to_the_whole_batch(tiny, update_of, initial, stepped, key):
    update = update_of(microbatches=4)
    state, metrics = jax.jit(update)(initial(update), tiny.frozen, tiny.batch, key)
    _, _, whole, whole_metrics = stepped
    np.testing.assert_allclose(metrics["loss"], whole_metrics["loss"], rtol=1e-5)
    np.testing.assert_allclose(metrics["gradient_norm"], whole_metrics["gradient_norm"], rtol=1e-4)
    assert_trees_close(state.trained, whole.trained, 1e-4)


def test_the_loss_decreases_on_one_batch(tiny, stepped, key):
    _, step, state, metrics = stepped
    losses = [float(metrics["loss"])]
    for _ in range(5):
        state, metrics = step(state, tiny.frozen, tiny.batch, key)
        losses.append(float(metrics["loss"]))
    assert (np.diff(losses) < 0).all()


def test_a_batch_without_target_tokens_changes_nothing(tiny, stepped, initial, key):
    update, step, _, _ = stepped
    empty = {**tiny.batch, "decoder_loss_weights": np.zeros_like(tiny.batch["decoder_loss_weights"])}
    state, metrics = step(initial(update), tiny.frozen, empty, key)
    assert float(metrics["loss"]) == 0
    assert_trees_equal(state.trained, tiny.trained)


def test_random_numbers_depend_only_on_the_key_and_the_step(
    tiny, update_of, initial, random_model, key, flat
):
    update = update_of(model=random_model)
    step = jax.jit(update)
    before = initial(update)
    state, metrics = step(before, tiny.frozen, tiny.batch, key)
    again, again_metrics = step(before, tiny.frozen, tiny.batch, key)
    assert float(metrics["loss"]) == float(again_metrics["loss"])
    assert_trees_equal(again.trained, state.trained)
    other_key = step(before, tiny.frozen, tiny.batch, jax.random.key(1))[1]["loss"]
    later = dataclasses.replace(before, step=before.step + 1)
    other_step = step(later, tiny.frozen, tiny.batch, key)[1]["loss"]
    assert len({float(metrics["loss"]), float(other_key), float(other_step)}) == 3


def test_stacked_states_are_updated_like_each_alone(tiny, stepped, initial, key):
    update, step, _, _ = stepped
    states = [initial(update), initial(update, factor=-0.5)]
    rolled = jax.tree.map(lambda rows: np.roll(rows, 3, axis=0), tiny.batch)
    batches = [tiny.batch, {**rolled, "decoder_loss_weights": rolled["decoder_loss_weights"] * 0 + 1}]
    keys = np.stack([np.asarray(jax.random.key_data(jax.random.key(seed))) for seed in (0, 1)])

    def stack(trees):
        return jax.tree.map(lambda *leaves: np.stack(leaves), *trees)

    together = jax.jit(jax.vmap(update, in_axes=(0, None, 0, 0)))
    stacked, metrics = together(stack(states), tiny.frozen, stack(batches), jax.random.wrap_key_data(keys))
    for i in range(2):
        alone, alone_metrics = step(states[i], tiny.frozen, batches[i], jax.random.key(i))
        np.testing.assert_allclose(metrics["loss"][i], alone_metrics["loss"], rtol=1e-5)
        got = jax.tree.map(lambda leaf, i=i: leaf[i], stacked)
        assert_trees_close(got.trained, alone.trained, 1e-5)
        assert int(got.step) == 1


def test_a_step_keeps_the_structure_of_the_state(tiny, stepped, initial):
    """`fit` donates the state, so the next state must have the same structure, shapes and dtypes."""
    update, _, state, _ = stepped
    before = initial(update)
    assert jax.tree.structure(before) == jax.tree.structure(state)
    assert jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), before) == jax.tree.map(
        lambda leaf: (leaf.shape, leaf.dtype), state
    )


def test_adafactor_runs_on_the_same_trees(tiny, update_of, initial):
    update = update_of(Optimizer(algorithm="adafactor", warmup_fraction=0.0))
    state = initial(update)
    shapes = jax.eval_shape(update, state, tiny.frozen, tiny.batch, jax.random.key(0))[0]
    assert jax.tree.structure(shapes) == jax.tree.structure(state)
