"""One HTML page with the findings about a router and the embedded figures."""

import base64
import functools
import importlib.resources
import math
from collections.abc import Mapping
from typing import Any

import jinja2
import markupsafe
import numpy as np
from jaxtyping import Float

from poly_jax.analysis.findings import Findings
from poly_jax.reporting.html_template import html_template

_TEMPLATE = "routing.html.jinja"
_SCRIPT = "routing_page.js"
_MOST_WEIGHTS = 700_000
"""Number of mixing weights that a page holds, in 1.9 MB."""


def page(found: Findings, pictures: Mapping[str, bytes], run: str, step: int, n_examples: int | None) -> str:
    """The page as HTML; names are escaped.

    Args:
      found: the findings.
      pictures: PNGs, by their names in the template.
      run: folder of the run, for the title.
      step: step of its checkpoint.
      n_examples: number of examples per task whose gradients were compared; None if none were.
    """
    images = {
        name: "data:image/png;base64," + base64.b64encode(data).decode() for name, data in pictures.items()
    }
    tasks: list[dict[str, Any]] = []
    counts = list(found.effective_skills().values())
    for task in map(int, found.clusters.order):
        nearest = found.nearest(task)
        tasks.append(
            {
                "name": found.names[task],
                "cluster": found.clusters.of_task[task],
                "count": sum(float(layer[task]) for layer in counts) / len(counts),
                "strongest": [
                    (head, found.skill_name(skill), share) for head, skill, share in found.strongest(task)
                ],
                "nearest": None if nearest is None else found.names[nearest],
                "similarity": math.nan if nearest is None else found.similarity[task, nearest],
                "groups": found.groups_of(task),
                "moved": [float(rows[task]) for rows in found.drift_of_task.values()],
            }
        )
    return _template().render(
        found=found,
        heads=_heads(found),
        script=_script(),
        adapters=found.adapters,
        router=type(found.adapters.router).__name__,
        n_skills=found.adapters.inventory_size,
        skills=[
            (found.skill_name(skill), *found.used_most(skill))
            for skill in range(found.adapters.inventory_size)
        ],
        images=images,
        tasks=tasks,
        run=run,
        step=step,
        n_examples=n_examples,
    )


def _heads(found: Findings) -> dict[str, Any]:
    """The weights of routers for the page's script, with tasks in the order of the dendrogram.

    The router that is the most like all routers together comes first. The others follow in the order of the
    model, while there is room.
    """
    order = found.clusters.order
    first = found.weights[found.shown]
    _, splits, skills = first.shape
    places = [found.shown, *(place for place in found.weights if place != found.shown)]
    room = max(1, _MOST_WEIGHTS // first.size)
    return {
        "tasks": [found.names[task] for task in order],
        "splits": splits,
        "skills": skills,
        "skill_names": found.skill_names,
        "routers": [{"place": place, **_packed(found.weights[place][order])} for place in places[:room]],
    }


def _packed(weights: Float[np.ndarray, "tasks splits skills"]) -> dict[str, Any]:
    """Weights as two bytes each (least significant first, base64) between their lowest and highest value."""
    low, high = float(min(weights.min(), 0)), float(weights.max())
    scaled = np.round((weights - low) / ((high - low) or 1) * (2**16 - 1))
    return {"low": low, "high": high, "weights": base64.b64encode(scaled.astype("<u2").tobytes()).decode()}


@functools.cache
def _script() -> markupsafe.Markup:
    return markupsafe.Markup(importlib.resources.files("poly_jax.analysis").joinpath(_SCRIPT).read_text())


@functools.cache
def _template() -> jinja2.Template:
    return html_template("poly_jax.analysis", _TEMPLATE, {"number": _number, "small": _small})


def _number(value: float, digits: int = 2) -> str:
    """A number with fixed decimals; a dash if it is not defined."""
    return f"{value:.{digits}f}" if math.isfinite(value) else "–"


def _small(value: float) -> str:
    """A number of any size with three significant digits; a dash if it is not defined."""
    return f"{value:.3g}" if math.isfinite(value) else "–"
