"""Figures of what a router learned: its measures, skills, tasks, drift and gradients."""

import io
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float, Int
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.patches import Rectangle

from poly_jax.analysis.drift import Drift
from poly_jax.analysis.statistics import Statistics
from poly_jax.counted import counted
from poly_jax.weights.parameter_names import in_order

DPI = 130
_INK = "#2f4b7c"
_MEASURES = ("discreteness", "sparsity", "usage_entropy", "specialisation")
_MOST_NAMES = 80


def png(figure: Figure) -> bytes:
    """The figure as a PNG."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=DPI)
    return buffer.getvalue()


def measures_figure(layers: Mapping[str, Statistics]) -> Figure:
    """A panel for each measure that is defined, with a dot for every layer."""
    shown = [name for name in _MEASURES if any(np.isfinite(getattr(one, name)) for one in layers.values())]
    shown.append("effective_skills")
    figure, panels = _panels(len(shown), len(layers))
    for axes, name in zip(panels, shown, strict=True):
        values = [getattr(one, name) for one in layers.values()]
        _dots(axes, list(layers), values, name.replace("_", " "))
        axes.set_xlim(0, 1.04 if name != "effective_skills" else 1.1 * max(*values, 1.0))
    return figure


_MOST_SKILL_NAMES = 64


def usage_figure(
    used: Mapping[str, Float[np.ndarray, "splits skills"]], skill_names: Sequence[str] = ()
) -> Figure:
    """Mean share of every skill at every router, relative to equal shares; skills may have no names."""
    places = list(used)
    n_splits, n_skills = next(iter(used.values())).shape
    table = np.stack([part.reshape(-1) for part in used.values()]) * n_skills
    row = min(0.2, 24 / len(places))
    figure = Figure(figsize=(9.5, max(row * len(places), 0.7) + 1.2), layout="constrained")
    axes = figure.subplots()
    limit = max(2.0, float(np.quantile(table, 0.995)))
    picture = axes.imshow(table, aspect="auto", cmap="viridis", vmin=0, vmax=limit, interpolation="nearest")
    axes.set_yticks(range(len(places)), places, fontsize=min(7, 54 * row))
    mark_heads(axes, n_splits, n_skills, most_names=10, skill_names=skill_names)
    _bar(figure, axes, picture, "share x number of skills")
    return figure


def mark_heads(
    axes: Axes, n_splits: int, n_skills: int, most_names: int, skill_names: Sequence[str] = ()
) -> None:
    """Divide the columns of skills into heads, and name at most `most_names` of the heads.

    With one head, up to 64 skills are named, where they have names.
    """
    if n_splits == 1 and 0 < len(skill_names) <= _MOST_SKILL_NAMES:
        axes.set_xticks(range(n_skills), skill_names, rotation=90, fontsize=7, parse_math=False)
        return
    for head in range(1, n_splits):
        axes.axvline(head * n_skills - 0.5, color="white", linewidth=1 if n_splits <= 16 else 0.3)
    named = range(0, n_splits, -(-n_splits // most_names))
    axes.set_xticks(
        [head * n_skills + (n_skills - 1) / 2 for head in named],
        [f"head {head}" for head in named] if n_splits > 1 else [counted(n_skills, "skill")],
        fontsize=8,
    )


def pairs_figure(
    matrix: Float[np.ndarray, "tasks tasks"],
    order: Int[np.ndarray, "tasks"],
    of_task: Int[np.ndarray, "tasks"],
    names: Sequence[str],
    label: str,
) -> Figure:
    """A value for every pair of tasks, in the order of the dendrogram, with clusters outlined.

    The colour scale ends at the largest value of two different tasks, or at 0.2 if that is larger.
    """
    n_tasks = len(matrix)
    limit = max(0.2, float(np.abs(matrix[~np.eye(n_tasks, dtype=bool)]).max()))
    # Leave space for the names of all tasks, up to a number of names that can be read.
    size = float(np.clip(0.16 * n_tasks, 4, 12))
    figure = Figure(figsize=(size + 2.6, size + 0.4), layout="constrained")
    axes = figure.subplots()
    picture = axes.imshow(
        matrix[np.ix_(order, order)], cmap="RdBu_r", vmin=-limit, vmax=limit, interpolation="nearest"
    )
    start = 0
    for cluster in dict.fromkeys(of_task[order]):
        width = int(np.sum(of_task == cluster))
        corner = (start - 0.5, start - 0.5)
        axes.add_patch(Rectangle(corner, width, width, fill=False, lw=1, ec="black"))
        start += width
    axes.set_xticks([])
    if n_tasks <= _MOST_NAMES:
        size = 7 if n_tasks <= 60 else 5.5
        axes.set_yticks(range(n_tasks), [names[i] for i in order], fontsize=size, parse_math=False)
    else:
        axes.set_yticks([])
    _bar(figure, axes, picture, label)
    return figure


def drift_figure(drifts: Mapping[tuple[str, str], Drift]) -> Figure:
    """A panel for each kind of parameter, with a dot for the RMS change of every layer."""
    kinds = list(dict.fromkeys(kind for kind, _ in drifts))
    layers = in_order({layer for _, layer in drifts})
    figure, panels = _panels(len(kinds), len(layers))
    for axes, kind in zip(panels, kinds, strict=True):
        values = [drifts[kind, layer].rms if (kind, layer) in drifts else np.nan for layer in layers]
        _dots(axes, layers, values, f"{kind}: RMS change")
        axes.set_xlim(0, 1.1 * max(np.nanmax(values), 1e-12))
    return figure


def alignment_figure(of_layer: Mapping[str, float]) -> Figure:
    """Mean cosine of the gradients of two tasks in every layer."""
    figure, panels = _panels(1, len(of_layer))
    _dots(panels[0], list(of_layer), list(of_layer.values()), "mean cosine over pairs of tasks")
    panels[0].axvline(0, color="black", linewidth=0.8)
    return figure


def _bar(figure: Figure, axes: Axes, picture: AxesImage, label: str) -> None:
    shrink = min(0.6, 3.5 / figure.get_figheight())
    bar = figure.colorbar(picture, ax=axes, shrink=shrink, aspect=30)
    bar.set_label(label, fontsize=8)
    bar.ax.tick_params(labelsize=7)


def _panels(count: int, rows: int) -> tuple[Figure, list[Axes]]:
    figure = Figure(figsize=(2.1 * count + 1.6, max(0.24 * rows, 0.5) + 0.9), layout="constrained")
    return figure, list(figure.subplots(1, count, sharey=True, squeeze=False)[0])


def _dots(axes: Axes, rows: Sequence[str], values: Sequence[float], title: str) -> None:
    places = np.arange(len(rows))
    axes.hlines(places, 0, values, color=_INK, alpha=0.35, linewidth=1.5)
    axes.plot(values, places, "o", color=_INK, markersize=4.5)
    axes.set_yticks(places, rows, fontsize=8)
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_title(title, fontsize=9)
    axes.tick_params(axis="x", labelsize=7)
    axes.grid(axis="x", color="0.9")
    axes.set_axisbelow(True)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
