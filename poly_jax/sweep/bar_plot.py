"""A bar plot of a sweep's scores: a group of bars for each task, with one bar for each method."""

import io

import matplotlib
import numpy as np
from etils import epath
from matplotlib.figure import Figure

from poly_jax.sweep.summary import MEAN, Summary

_HEIGHT = 3.2
_MOST_NAMES = 20
"""Largest number of names in a column of the legend."""


def save_bar_plot(path: epath.Path, summary: Summary, metric: str) -> None:
    """Write a PNG of medians over seeds, with lines from the worst to the best seed, and means over tasks."""
    groups = [*summary.tasks, MEAN]
    count = len(summary.methods)
    figure = Figure(figsize=(max(0.16 * (count + 2) * len(groups), 2.5), _HEIGHT))
    # The axes fill the figure, and names and legend are outside it. The saved image includes them, so that
    # names of any length do not make the axes smaller.
    axes = figure.add_axes((0, 0, 1, 1))
    colors = matplotlib.colormaps["tab20"](np.arange(count) % 20)
    places, width = np.arange(len(groups)), 0.85 / count
    bars = []
    for i in range(count):
        heights = np.append(summary.medians[i], summary.means[i])
        over_tasks = summary.scores[i].mean(axis=0)
        low = np.append(summary.scores[i].min(axis=-1), over_tasks.min())
        high = np.append(summary.scores[i].max(axis=-1), over_tasks.max())
        x = places + (i - (count - 1) / 2) * width
        bars.append(axes.bar(x, heights, width, color=colors[i]))
        axes.vlines(x, low, high, color="black", linewidth=0.8)
    axes.set_xticks(places, groups, rotation=20, ha="right", parse_math=False)
    axes.axvline(len(groups) - 1.5, color="gray", linewidth=0.8, linestyle=":")
    axes.set_ylabel(metric, parse_math=False)
    axes.set_xlim(-0.5, len(groups) - 0.5)
    legend = axes.legend(
        bars,
        summary.methods,
        loc="upper left",
        bbox_to_anchor=(1.01, 1.0),
        ncols=-(-count // _MOST_NAMES),
        frameon=False,
        fontsize="small",
    )
    for text in legend.get_texts():
        text.set_parse_math(False)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=120, bbox_inches="tight")
    path.write_bytes(buffer.getvalue())
