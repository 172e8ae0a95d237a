"""The figure of a router."""

import itertools
import warnings

import numpy as np
import pytest

from poly_jax.analysis.router_plot import representative, router_figure, save_router_plot


def weights(seed=0):
    rng = np.random.default_rng(seed)
    groups = np.repeat(rng.random((3, 2, 4)), 4, axis=0)
    noise = rng.random((12, 2, 4))
    return {
        "encoder/a": noise,
        "encoder/b": groups + 0.01 * noise,
        "encoder/c": groups + 0.02 * rng.random((12, 2, 4)),
    }


def test_the_router_shown_is_one_that_resembles_the_others():
    assert representative(weights()) in ("encoder/b", "encoder/c")


def test_tasks_are_named_in_the_dendrograms_order_beside_their_skills(tmp_path):
    names = [f"task{i}" for i in range(12)]
    skills = np.repeat(np.eye(3, dtype=int), 4, axis=0)
    figure = router_figure(weights(), names, skills, ("x", "y", "z"))
    _, true, mix = figure.axes[:3]
    shown = [label.get_text() for label in true.get_yticklabels()]
    assert sorted(shown) == sorted(names)
    order = [names.index(name) for name in shown]
    np.testing.assert_array_equal(true.get_images()[0].get_array(), skills[order])
    # Rows of one group are adjacent.
    assert sum(a // 4 != b // 4 for a, b in itertools.pairwise(order)) == 2
    assert mix.get_images()[0].get_array().shape == (12, 8)
    save_router_plot(tmp_path / "router.png", weights(), names)
    assert (tmp_path / "router.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("letters", [1, 60])
@pytest.mark.parametrize(("n_tasks", "n_splits", "n_skills"), [(2, 1, 1), (2, 1, 2), (12, 2, 4)])
def test_the_figure_is_drawn_without_warnings_for_few_tasks_and_long_names(
    tmp_path, n_tasks, n_splits, n_skills, letters
):
    tables = {"model": np.random.default_rng(0).random((n_tasks, n_splits, n_skills)).astype(np.float32)}
    names = [f"$_{i}" + "n" * letters for i in range(n_tasks)]
    groups = [[i % 2] for i in range(n_tasks)]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        save_router_plot(tmp_path / "bare.png", tables, names)
        save_router_plot(tmp_path / "groups.png", tables, names, np.array(groups), ["$_" + "g" * letters])
