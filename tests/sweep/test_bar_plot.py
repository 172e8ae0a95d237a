"""The picture of a sweep, whatever its size and names."""

import warnings

import numpy as np
import pytest
from matplotlib.image import imread

from poly_jax.sweep.bar_plot import save_bar_plot
from poly_jax.sweep.summary import Summary


@pytest.mark.parametrize(("methods", "tasks"), [(1, 1), (2, 1), (3, 8), (45, 2)])
@pytest.mark.parametrize("letters", [1, 60])
def test_it_is_drawn_without_a_warning_and_the_bars_keep_their_room(tmp_path, methods, tasks, letters):
    scores = np.random.default_rng(0).uniform(0, 100, (methods, tasks, 3))
    summary = Summary(
        tuple(f"$_{i}" + "m" * letters for i in range(methods)),
        tuple(f"$_{i}" + "t" * letters for i in range(tasks)),
        scores,
    )
    path = tmp_path / "bars.png"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        save_bar_plot(path, summary, "a $metric")
    pixels = imread(path)[..., :3]
    # At least 2.5 x 3.2 inches of axes at 120 dots an inch, around which names and legend are added.
    assert pixels.shape[0] >= 384
    assert pixels.shape[1] >= 300
    # The colour of the first method's bars, tab:blue, covers more than its patch in the legend.
    assert (np.abs(pixels - np.array([31, 119, 180]) / 255) < 0.02).all(-1).sum() > 600


def test_scores_that_are_not_defined_leave_gaps(tmp_path):
    summary = Summary(("a",), ("t",), np.full((1, 1, 2), np.nan))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        save_bar_plot(tmp_path / "bars.png", summary, "score")
