"""A sweep's scores as a picture: a group of bars a task, a bar a method."""

import io

import matplotlib
import numpy as np
from etils import epath
from matplotlib.figure import Figure

from poly_jax.sweep.summary import MEAN, Summary


def save_bar_plot(path: epath.Path, summary: Summary, metric: str) -> None:
    """Writes a PNG: medians over seeds, a line from the worst to the best seed; means over tasks last."""
    groups = [*summary.tasks, MEAN]
    count = len(summary.methods)
    figure = Figure(figsize=(2.0 + 0.16 * (count + 2) * len(groups), 4.2), layout="constrained")
    axes = figure.subplots()
    colors = matplotlib.colormaps["tab20"](np.arange(count) % 20)
    places, width = np.arange(len(groups)), 0.85 / count
    for i, method in enumerate(summary.methods):
        heights = np.append(summary.medians[i], summary.means[i])
        over_tasks = summary.scores[i].mean(axis=0)
        low = np.append(summary.scores[i].min(axis=-1), over_tasks.min())
        high = np.append(summary.scores[i].max(axis=-1), over_tasks.max())
        x = places + (i - (count - 1) / 2) * width
        axes.bar(x, heights, width, label=method, color=colors[i])
        axes.vlines(x, low, high, color="black", linewidth=0.8)
    axes.set_xticks(places, groups, rotation=20, ha="right")
    axes.axvline(len(groups) - 1.5, color="gray", linewidth=0.8, linestyle=":")
    axes.set_ylabel(metric)
    axes.margins(x=0.01)
    figure.legend(loc="outside right upper", frameon=False, fontsize="small")
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=120)
    path.write_bytes(buffer.getvalue())
