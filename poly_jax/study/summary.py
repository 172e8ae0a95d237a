"""Tables of scores over seeds, and of the differences between methods."""

from collections.abc import Sequence

from poly_jax.reporting.results_file import ResultsFile
from poly_jax.reporting.table import markdown_table
from poly_jax.study.methods import FRESH, LEARNED_ROUTERS, METHODS, MHR, POLY, SHARED, SHARED_WIDE
from poly_jax.study.seeds import over_seeds, shown


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


def _scores(results: ResultsFile, form: str, seeds: Sequence[int]) -> str:
    rows = []
    for method in METHODS:
        seen = over_seeds(results, "seen", seeds, stage="seen", form=form, method=method.name)
        if seen is None:
            continue
        size = next(r["trained"] for _, r in results.matching(stage="seen", form=form, method=method.name))
        first = [method.name, f"{size:,}", shown(seen)]
        for variant in (adaptation.name for adaptation in method.adaptations):
            key = {"stage": "heldout", "form": form, "method": method.name, "variant": variant}
            heldout = over_seeds(results, "heldout", seeds, **key)
            if heldout is None:
                continue
            found = next(result for _, result in results.matching(**key))
            size, rate = (f"{found['trained']:,}", f"{found['rate']:g}") if found["rate"] else ("0", "-")
            rows.append([*first, variant, size, rate, shown(heldout)])
            first = ["", "", ""]
    columns = ("method", "trained", "seen tasks", "adapted as", "trained per task", "rate", "held-out tasks")
    return markdown_table(columns, rows)


def _differences(results: ResultsFile, form: str, seeds: Sequence[int]) -> str:
    def heldout(method: str, variant: str):
        return over_seeds(
            results, "heldout", seeds, stage="heldout", form=form, method=method, variant=variant
        )

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
    rows = [[name, shown(a - b)] for name, a, b in pairs if a is not None and b is not None]
    return markdown_table(("paired difference on held-out tasks", "points"), rows)


def _routers(results: ResultsFile, seeds: Sequence[int]) -> str:
    rows = []
    for method in LEARNED_ROUTERS:
        values = [
            over_seeds(results, field, seeds, stage="router", method=method.name)
            for field in ("correlation", "permutation_p", "adjusted_rand")
        ]
        if values[0] is not None and values[1] is not None:
            rows.append([method.name, shown(values[0], 2), f"{values[1].max():.3f}", shown(values[2], 2)])
    columns = ("router", "correlation with shared skills", "largest permutation p", "adjusted Rand index")
    return markdown_table(columns, rows)
