"""The bar plot of a sweep, for any number of methods and tasks and any length of names."""

import warnings

import numpy as np
import pytest
from matplotlib.image import imread

from poly_jax.sweep.bar_plot import save_bar_plot
from poly_jax.sweep.summary import Summary


@pytest.mark.parametrize(("methods", "tasks"), [(1, 1), (2, 1), (3, 8), (45, 2)])
@pytest.mark.parametrize("letters", [1, 60])
def test_the_plot_is_drawn_without_warnings_and_the_bars_keep_their_size(tmp_path, methods, tasks, letters):
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
    # The axes have at least 2.5 x 3.2 inches at 120 dots per inch; names and legend are added around them.
    assert pixels.shape[0] >= 384
    assert pixels.shape[1] >= 300
    # tab:blue, the colour of the first method's bars, covers more than its patch in the legend.
    assert (np.abs(pixels - np.array([31, 119, 180]) / 255) < 0.02).all(-1).sum() > 600


def test_undefined_scores_leave_gaps(tmp_path):
    summary = Summary(("a",), ("t",), np.full((1, 1, 2), np.nan))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        save_bar_plot(tmp_path / "bars.png", summary, "score")
