"""The tables and the picture of the study of heads."""

import itertools
from collections.abc import Sequence

import matplotlib
import numpy as np
from etils import epath
from jaxtyping import Float
from matplotlib.figure import Figure

from poly_jax.reporting.results_file import ResultsFile
from poly_jax.reporting.table import markdown_table
from poly_jax.study.heads import CELLS, LATER, ROUTERS, Cell
from poly_jax.study.seeds import interval, over_seeds, shown

_ADAPTED = {"": "everything adapts", "-z": "the row alone (-z)", "-mu": "the average of the skills (-mu)"}
_GRID = [cell for cell in CELLS if not cell.factor]
Scores = Float[np.ndarray, "seeds"]


def write_summary(folder: epath.Path, results: ResultsFile, seeds: Sequence[int]) -> str:
    """Write `summary.md` and `heads.png`, and return the tables.

    Cells that lack a seed are left out.
    """
    parts = [
        "### Grid\n",
        _scores(results, [*_GRID, *(cell for cell in CELLS if cell.factor)], seeds),
        "### Heads against one head\n",
        _differences(results, seeds),
        "### The row alone against everything\n",
        _row_alone(results, seeds),
        "### Other adaptations\n",
        _other_adaptations(results, seeds),
    ]
    text = "\n".join(parts)
    (folder / "summary.md").write_text(text)
    picture(results, seeds).savefig(folder / "heads.png", dpi=130)
    return text


def heldout(results: ResultsFile, cell: Cell, variant: str, seeds: Sequence[int]) -> Scores | None:
    """Scores on held-out tasks with a variant or a named adaptation, one for each seed of the cell."""
    own = cell.seeds_among(seeds)
    key = {"stage": "heldout", "form": "named", "method": cell.method.name, "variant": variant}
    return over_seeds(results, "heldout", own, **key) if own else None


def _scores(results: ResultsFile, cells: Sequence[Cell], seeds: Sequence[int]) -> str:
    rows = []
    for cell in cells:
        own = cell.seeds_among(seeds)
        key = {"stage": "seen", "form": "named", "method": cell.method.name}
        seen = over_seeds(results, "seen", own, **key) if own else None
        if seen is None:
            continue
        trained = next(result["trained"] for _, result in results.matching(**key))
        found = [heldout(results, cell, f"{cell.family}{ending}", seeds) for ending in _ADAPTED]
        rows.append(
            [cell.method.name, f"{cell.n_numbers:,}", f"{trained:,}", str(len(own)), shown(seen)]
            + [shown(values) for values in found]
        )
    columns = ("cell", "numbers a task", "trained", "seeds", "seen tasks", *_ADAPTED.values())
    return markdown_table(columns, rows)


def _differences(results: ResultsFile, seeds: Sequence[int]) -> str:
    rows = []
    pairs = [(one, many) for one, many in itertools.product(CELLS, CELLS) if _comparable(one, many)]
    for one, many in pairs:
        found = []
        for ending in _ADAPTED:
            poly = _by_seed(results, one, f"{one.family}{ending}", seeds)
            mhr = _by_seed(results, many, f"{many.family}{ending}", seeds)
            common = sorted(set(poly) & set(mhr))
            found.append(shown(np.array([mhr[s] - poly[s] for s in common])) if len(common) > 1 else "-")
        if any(text != "-" for text in found):
            rows.append([f"{many.method.name} - {one.method.name}", *found])
    return markdown_table(("paired difference", *_ADAPTED.values()), rows)


def _comparable(one: Cell, many: Cell) -> bool:
    """Whether two cells differ in nothing but one head against several, or have as many routing numbers."""
    if one.n_splits != 1 or many.n_splits == 1:
        return False
    same_place = (one.granularity, one.factor) == (many.granularity, many.factor)
    return same_place or (one.n_numbers == many.n_numbers and not many.factor)


def _row_alone(results: ResultsFile, seeds: Sequence[int]) -> str:
    rows = []
    for cell in _GRID:
        full = _by_seed(results, cell, cell.family, seeds)
        row = _by_seed(results, cell, f"{cell.family}-z", seeds)
        common = sorted(set(full) & set(row))
        if len(common) > 1:
            rows.append([cell.method.name, shown(np.array([row[s] - full[s] for s in common]))])
    return markdown_table(("cell", "-z minus everything"), rows)


def _other_adaptations(results: ResultsFile, seeds: Sequence[int]) -> str:
    rows = []
    for cell in (*CELLS, *LATER):
        for adaptation in cell.method.adaptations[3:]:
            values = heldout(results, cell, adaptation.name, seeds)
            if values is not None:
                rows.append([cell.method.name, adaptation.name, shown(values)])
    return markdown_table(("cell", "adapted as", "held-out tasks"), rows)


def _by_seed(results: ResultsFile, cell: Cell, variant: str, seeds: Sequence[int]) -> dict[int, float]:
    values = heldout(results, cell, variant, seeds)
    return {} if values is None else dict(zip(cell.seeds_among(seeds), map(float, values), strict=True))


def picture(results: ResultsFile, seeds: Sequence[int]) -> Figure:
    """Held-out accuracy over routing numbers per task: a line for each granularity, a panel for each way."""
    figure = Figure(figsize=(13, 4.4), layout="constrained")
    panels = figure.subplots(1, len(_ADAPTED), sharey=True)
    shades = matplotlib.colormaps["viridis"](np.linspace(0, 0.85, len(ROUTERS)))
    colors = dict(zip(ROUTERS, shades, strict=True))
    for panel, (ending, title) in zip(panels, _ADAPTED.items(), strict=True):
        for granularity, color in colors.items():
            points = [
                (cell.n_numbers, *interval(values), cell.n_splits)
                for cell in sorted(_GRID, key=lambda cell: cell.n_splits)
                if cell.granularity == granularity
                and (values := heldout(results, cell, f"{cell.family}{ending}", seeds)) is not None
            ]
            if not points:
                continue
            numbers, means, halves, heads = zip(*points, strict=True)
            label = f"{granularity}: {ROUTERS[granularity]} router{'s' if ROUTERS[granularity] > 1 else ''}"
            panel.errorbar(numbers, means, np.nan_to_num(halves), color=color, capsize=3, lw=1.2, label=label)
            for x, y, n in zip(numbers, means, heads, strict=True):
                panel.plot(x, y, "o", color=color, mfc="white" if n == 1 else color, ms=7, zorder=3)
                panel.annotate(str(n), (x, y), (7, -11), textcoords="offset points", fontsize=8)
        panel.set_xscale("log")
        panel.set_title(title, fontsize=10)
        panel.set_xlabel("routing numbers per task")
        panel.grid(alpha=0.3)
    # An interval by Student's t may end above 100%.
    panels[0].set_ylim(0, 105)
    panels[0].set_ylabel("exact match on held-out tasks, %")
    panels[0].plot([], [], "o", color="grey", mfc="white", label="one head (Poly)")
    panels[0].plot([], [], "o", color="grey", label="several heads (MHR; their number)")
    panels[0].legend(fontsize=8, loc="lower right")
    return figure
