"""Tables of scores over seeds, and of the differences between methods."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
from scipy import stats

from poly_jax.reporting.results_file import ResultsFile
from poly_jax.reporting.table import markdown_table
from poly_jax.study.methods import FRESH, LEARNED_ROUTERS, METHODS, MHR, POLY, SHARED, SHARED_WIDE


def interval(values: Sequence[float] | Float[np.ndarray, "seeds"]) -> tuple[float, float]:
    """The mean, and half the width of its 95% confidence interval by Student's t distribution."""
    mean = float(np.mean(values))
    if len(values) < 2:
        return mean, float("nan")
    return mean, float(stats.sem(values) * stats.t.ppf(0.975, len(values) - 1))


def summarise(results: ResultsFile, seeds: Sequence[int]) -> str:
    """Tables in Markdown: scores of every method on seen and held-out tasks, differences, and routers."""
    parts = []
    for form in ("named", "nameless"):
        parts.append(
            f"### Inputs {'with the opaque name of their task' if form == 'named' else 'without a name'}\n"
        )
        parts.append(_scores(results, form, seeds))
        parts.append(_differences(results, form, seeds))
    parts += ["### What the routers found\n", _routers(results, seeds)]
    return "\n".join(parts)


def _values(
    results: ResultsFile, field: str, seeds: Sequence[int], **key: str
) -> Float[np.ndarray, "seeds"] | None:
    by_seed = {found["seed"]: result[field] for found, result in results.matching(**key)}
    if not set(seeds) <= set(by_seed):
        return None
    # An undefined number is None in the file and NaN in an array of floats.
    return np.array([by_seed[seed] for seed in seeds], np.float64)


def _shown(values: Float[np.ndarray, "seeds"] | None, digits: int = 1) -> str:
    if values is None:
        return "-"
    mean, half = interval(values)
    if np.isnan(half):
        return f"{mean:.{digits}f}"
    return f"{mean:.{digits}f} ± {half:.{digits}f}"


def _scores(results: ResultsFile, form: str, seeds: Sequence[int]) -> str:
    rows = []
    for method in METHODS:
        seen = _values(results, "seen", seeds, stage="seen", form=form, method=method.name)
        if seen is None:
            continue
        size = next(r["trained"] for _, r in results.matching(stage="seen", form=form, method=method.name))
        first = [method.name, f"{size:,}", _shown(seen)]
        for variant in (adaptation.name for adaptation in method.adaptations):
            key = {"stage": "heldout", "form": form, "method": method.name, "variant": variant}
            heldout = _values(results, "heldout", seeds, **key)
            if heldout is None:
                continue
            found = next(result for _, result in results.matching(**key))
            size, rate = (f"{found['trained']:,}", f"{found['rate']:g}") if found["rate"] else ("0", "-")
            rows.append([*first, variant, size, rate, _shown(heldout)])
            first = ["", "", ""]
    columns = ("method", "trained", "seen tasks", "adapted as", "trained per task", "rate", "held-out tasks")
    return markdown_table(columns, rows)


def _differences(results: ResultsFile, form: str, seeds: Sequence[int]) -> str:
    def heldout(method: str, variant: str):
        return _values(results, "heldout", seeds, stage="heldout", form=form, method=method, variant=variant)

    ours = {"MHR": heldout(MHR.name, "mhr"), "Poly": heldout(POLY.name, "poly")}
    known = {name: values for name, values in ours.items() if values is not None}
    if not known:
        return ""
    better = max(known, key=lambda name: known[name].mean())
    pairs = [
        (f"{better} - shared LoRA", known[better], heldout(SHARED.name, "shared")),
        (f"{better} - shared LoRA of 8 x rank", known[better], heldout(SHARED_WIDE.name, "shared")),
        (f"{better} - fresh LoRA", known[better], heldout(SHARED.name, FRESH.name)),
        ("MHR - Poly", ours["MHR"], ours["Poly"]),
    ]
    rows = [[name, _shown(a - b)] for name, a, b in pairs if a is not None and b is not None]
    return markdown_table(("paired difference on held-out tasks", "points"), rows)


def _routers(results: ResultsFile, seeds: Sequence[int]) -> str:
    rows = []
    for method in LEARNED_ROUTERS:
        values = [
            _values(results, field, seeds, stage="router", method=method.name)
            for field in ("correlation", "permutation_p", "adjusted_rand")
        ]
        if values[0] is not None and values[1] is not None:
            rows.append([method.name, _shown(values[0], 2), f"{values[1].max():.3f}", _shown(values[2], 2)])
    columns = ("router", "correlation with shared skills", "largest permutation p", "adjusted Rand index")
    return markdown_table(columns, rows)
