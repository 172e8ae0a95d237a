"""A figure of a router: which tasks have similar mixing weights, and the skills that they share."""

import os
from collections.abc import Sequence

import matplotlib
import numpy as np
from jaxtyping import Float, Int
from matplotlib.figure import Figure
from scipy.cluster import hierarchy

from poly_jax.analysis.agreement import linkage, measure, of_pairs, similarity
from poly_jax.analysis.figures import mark_heads
from poly_jax.analysis.weights import Weights, task_vectors

_TALLEST, _WIDEST = 30.0, 22.0
"""Largest height in inches of the rows of all tasks, and width of the columns of all skills."""
_INCHES_OF_LETTER = 0.075


def representative(weights: Weights) -> str:
    """The place of the router whose similarities between tasks are nearest to those over all routers.

    With fewer than three tasks it is the first router, because there are no two pairs to compare.
    """
    whole = similarity(task_vectors(weights))
    if len(whole) < 3:
        return next(iter(weights))

    def closeness(place: str) -> float:
        table = weights[place]
        vectors = table.reshape(len(table), -1)
        if np.any(np.ptp(vectors, axis=1) == 0):
            return -1.0
        return float(np.corrcoef(of_pairs(similarity(vectors)), of_pairs(whole))[0, 1])

    return max(weights, key=closeness)


def router_figure(
    weights: Weights,
    names: Sequence[str],
    skills: Int[np.ndarray, "tasks true_skills"] | None = None,
    skill_names: Sequence[str] = (),
    title: str = "",
    skills_title: str = "true skills",
    columns: Sequence[str] = (),
) -> Figure:
    """Dendrogram of the tasks, their true skills or groups, and their mixing weights at one router.

    Args:
      weights: mixing weights of every router of the model.
      names: names of the tasks, in the order of their ids.
      skills: 1 where a task needs a skill; None where that is not known.
      skill_names: names of the columns of `skills`.
      title: title of the figure.
      skills_title: title of the columns of `skills`.
      columns: names of the skills that are mixed; empty where they have none.
    """
    place = representative(weights)
    tree = linkage(task_vectors(weights))
    order = hierarchy.leaves_list(tree)
    table: Float[np.ndarray, "tasks splits skills"] = weights[place]
    n_tasks, n_splits, n_skills = table.shape
    n_true = 0 if skills is None else skills.shape[1]
    wide = [2.2, *([max(n_true, 4) * 0.25] if n_true else []), max(n_splits * n_skills * 0.11, 3)]
    # Hundreds of tasks or skills get smaller rows and columns, so that programs can still open the figure.
    row = min(0.22, _TALLEST / n_tasks)
    ratios = [min(width, _WIDEST) for width in wide]
    # Names of tasks are left of the panels and names of skills below, without making the panels smaller.
    beside = max(map(len, names)) * _INCHES_OF_LETTER
    below = max(map(len, (*skill_names, *columns)), default=0) * _INCHES_OF_LETTER
    size = (sum(ratios) + max(beside, 1.0) + 1.5, max(row * n_tasks, 3) + max(below, 0.6) + 1.0)
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots(1, len(ratios), width_ratios=ratios)
    ink = matplotlib.colormaps["Greys"](0.7)

    if tree[-1, 2] > 0:
        hierarchy.dendrogram(
            tree, orientation="left", ax=axes[0], no_labels=True, color_threshold=0, above_threshold_color=ink
        )
    axes[0].set_ylim(0, 10 * n_tasks)
    axes[0].invert_yaxis()
    axes[0].set_title("tasks the router treats alike", fontsize=9)
    axes[0].set_xlabel(f"1 - {measure(task_vectors(weights))} of mixing weights", fontsize=8)
    for side in ("top", "left", "right"):
        axes[0].spines[side].set_visible(False)
    if skills is not None:
        axes[1].imshow(skills[order], aspect="auto", cmap="Greys", vmin=0, vmax=1.4, interpolation="nearest")
        axes[1].set_xticks(range(n_true), skill_names, rotation=90, fontsize=8, parse_math=False)
        axes[1].set_title(skills_title, fontsize=9)
    picture = axes[-1].imshow(
        table.reshape(n_tasks, -1)[order], aspect="auto", cmap="viridis", vmin=0, interpolation="nearest"
    )
    mark_heads(axes[-1], n_splits, n_skills, most_names=16, skill_names=columns)
    axes[-1].set_title(f"mixing weights at {place}", fontsize=9)
    axes[1].set_yticks(range(n_tasks), [names[i] for i in order], fontsize=min(7, 54 * row), parse_math=False)
    for axis in axes[2:]:
        axis.set_yticks([])
    figure.colorbar(picture, ax=axes[-1], shrink=min(0.6, 4 / figure.get_figheight()))
    figure.suptitle(title, fontsize=11)
    return figure


def save_router_plot(path: str | os.PathLike[str], *args, **kwargs) -> None:
    """Write `router_figure` as a PNG."""
    router_figure(*args, **kwargs).savefig(path, dpi=130)
