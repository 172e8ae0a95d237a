"""The rows of tasks are read out of a table, and their gradients are added up in it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from poly_jax.routing.task_rows import task_rows

FEW, MANY = 5, 40_000


def drawn(n_tasks, rows):
    rng = np.random.default_rng(0)
    table = rng.normal(size=(n_tasks, 2, 3)).astype(np.float32)
    ids = rng.integers(0, 4, rows).astype(np.int32)
    change = rng.normal(size=(*rows, 2, 3)).astype(np.float32)
    return table, ids, change


@pytest.mark.parametrize("n_tasks", [FEW, MANY])
@pytest.mark.parametrize("rows", [(7,), (3, 4)])
def test_each_task_has_the_sum_of_the_gradients_of_its_rows(n_tasks, rows):
    table, ids, change = drawn(n_tasks, rows)
    value, pullback = jax.vjp(lambda table: task_rows(table, jnp.asarray(ids)), jnp.asarray(table))
    np.testing.assert_array_equal(value, table[ids])
    expected = np.zeros_like(table)
    np.add.at(expected, ids, change)
    np.testing.assert_allclose(pullback(jnp.asarray(change))[0], expected, rtol=1e-6, atol=1e-6)


def test_only_a_large_table_has_its_gradients_added_row_by_row():
    def primitives(n_tasks):
        table, ids, _ = drawn(n_tasks, (7,))
        return str(jax.make_jaxpr(jax.grad(lambda table: task_rows(table, ids).sum()))(table))

    assert "scatter" not in primitives(FEW)
    assert "scatter" in primitives(MANY)


def test_a_row_that_is_not_finite_reaches_its_own_task_alone():
    table, ids, _ = drawn(FEW, (7,))
    table[4] = np.inf
    assert np.isfinite(task_rows(jnp.asarray(table), jnp.asarray(ids))).all()
