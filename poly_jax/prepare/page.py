"""The report as one HTML page, with a histogram of lengths for every split of every task."""

import functools

import jinja2

from poly_jax.prepare.lengths import Lengths
from poly_jax.prepare.report import Report, SplitReport
from poly_jax.reporting.html_template import html_template

_TEMPLATE = "report.html.jinja"
_BARS = 32
# The limit is at this bar's left edge; the bars from there on are examples that are cut.
_BARS_BELOW_LIMIT = 24
_HEIGHT = 24


def page(report: Report) -> str:
    """Return the page, which needs no other file; names and reasons are escaped."""

    def described(part: SplitReport) -> dict[str, object]:
        return {
            "cells": report.row(part),
            "histograms": [
                histogram(part.lengths.get(feature, Lengths({})), limit)
                for feature, limit in report.limits.items()
            ],
            "dropped": part.dropped,
        }

    return _template().render(
        limits=report.limits,
        tasks=report.tasks,
        columns=report.columns(),
        totals=list(map(described, report.totals())),
        parts=list(map(described, report.splits)),
        width=_BARS,
        limit_at=_BARS_BELOW_LIMIT,
        height=_HEIGHT,
    )


def histogram(lengths: Lengths, limit: int) -> str:
    """Return the outline of a histogram as an SVG path.

    It has 24 bars of equal width below and at the limit, and 8 bars above it, of which the last one has all
    greater lengths.
    """
    bars = [0] * _BARS
    for length, count in lengths.counts.items():
        bars[min(max(length - 1, 0) * _BARS_BELOW_LIMIT // limit, _BARS - 1)] += count
    tallest = max(bars)
    if not tallest:
        return ""
    steps = [f"V{_HEIGHT - round(_HEIGHT * count / tallest, 1):g}h1" for count in bars]
    return f"M0 {_HEIGHT}{''.join(steps)}V{_HEIGHT}z"


@functools.cache
def _template() -> jinja2.Template:
    return html_template("poly_jax.prepare", _TEMPLATE)
