"""The tables of the study of new tasks without examples."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from poly_jax.reporting.results_file import ResultsFile
from poly_jax.reporting.table import markdown_table
from poly_jax.study.seeds import over_seeds, shown
from poly_jax.study.zero_shot_entries import ENTRIES, FORMS, REFERENCE, UNIFORM

Scores = Float[np.ndarray, "seeds"]


def summarise(results: ResultsFile, seeds: Sequence[int]) -> str:
    """Tables in Markdown: scores of every way to answer, and paired differences from the uniform mix.

    A method that lacks a seed is left out.
    """
    return "\n".join(
        ["### Scores\n", _scores(results, seeds), "### Differences\n", _differences(results, seeds)]
    )


def heldout(results: ResultsFile, method: str, answer: str, form: str, seeds: Sequence[int]) -> Scores | None:
    """Scores on held-out tasks, one for each seed; None where a seed has none."""
    key = {"stage": "zero-shot", "form": form, "method": method, "answer": answer}
    return over_seeds(results, "heldout", seeds, **key)


def _scores(results: ResultsFile, seeds: Sequence[int]) -> str:
    rows = []
    for entry in ENTRIES:
        name = entry.method.name
        seen = over_seeds(results, "seen", seeds, stage="seen", method=name)
        if seen is None:
            continue
        found = next(result for _, result in results.matching(stage="seen", method=name, seed=seeds[0]))
        first = [name, f"{found['trained']:,}", f"{found['rate']:g}", shown(seen)]
        for answer in entry.answers:
            scores = [shown(heldout(results, name, answer, form, seeds)) for form in FORMS]
            rows.append([*first, answer, *scores])
            first = ["", "", "", ""]
    columns = ("method", "trained", "rate", "seen tasks", "answers new tasks by")
    return markdown_table((*columns, *(f"new tasks, {form}" for form in FORMS)), rows)


def _differences(results: ResultsFile, seeds: Sequence[int]) -> str:
    rows = []
    for entry in ENTRIES:
        for answer in entry.answers:
            if (entry.method.name, answer) == REFERENCE:
                continue
            cells = []
            for form in FORMS:
                scores = heldout(results, entry.method.name, answer, form, seeds)
                uniform = heldout(results, *REFERENCE, form, seeds)
                cells.append("-" if scores is None or uniform is None else shown(scores - uniform))
            if any(cell != "-" for cell in cells):
                rows.append([f"{entry.method.name}, {answer}", *cells])
    first = f"minus the {UNIFORM} of {REFERENCE[0]}"
    return markdown_table((first, *(f"new tasks, {form}" for form in FORMS)), rows)
