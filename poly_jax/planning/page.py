"""A plan as one HTML page that needs no other file."""

import functools

import jinja2

from poly_jax.planning import texts
from poly_jax.planning.report import Report
from poly_jax.reporting.html_template import html_template

_TEMPLATE = "plan.html.jinja"
_KINDS = ("frozen", "trained", "optimizer", "activations", "program")
_WIDTH = 640


def page(reports: list[Report]) -> str:
    """Return the page; names are escaped."""
    return _template().render(plans=[_described(report) for report in reports])


def _described(report: Report) -> dict[str, object]:
    memory, whole = report.plan.memory, report.plan.accelerators.peaks.hbm_bytes
    scale = _WIDTH / max(whole, memory.peak)
    bars, left = [], 0.0
    for kind in _KINDS:
        width = (getattr(memory, kind) or 0) * scale
        bars.append({"kind": kind, "left": round(left, 2), "width": round(width, 2)})
        left += width
    return {
        "title": texts.headline(report),
        "notes": texts.notes(report),
        "verdict": report.verdict(),
        "fits": report.plan.fits,
        "bars": bars,
        "limit": round(whole * scale, 2),
        "width": _WIDTH,
        "lines": [*texts.work(report), *report.advice()],
        "tables": [texts.memory_table(report), *texts.collective_tables(report)],
    }


@functools.cache
def _template() -> jinja2.Template:
    return html_template("poly_jax.planning", _TEMPLATE)
