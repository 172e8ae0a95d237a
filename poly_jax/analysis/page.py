"""One HTML page with the findings about a router and the embedded figures."""

import base64
import functools
import math
from collections.abc import Mapping
from typing import Any

import jinja2

from poly_jax.analysis.findings import Findings
from poly_jax.reporting.html_template import html_template

_TEMPLATE = "routing.html.jinja"


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


@functools.cache
def _template() -> jinja2.Template:
    return html_template("poly_jax.analysis", _TEMPLATE, {"number": _number, "small": _small})


def _number(value: float, digits: int = 2) -> str:
    """A number with fixed decimals; a dash if it is not defined."""
    return f"{value:.{digits}f}" if math.isfinite(value) else "–"


def _small(value: float) -> str:
    """A number of any size with three significant digits; a dash if it is not defined."""
    return f"{value:.3g}" if math.isfinite(value) else "–"
