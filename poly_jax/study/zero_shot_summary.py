"""The tables of the study of new tasks without examples."""

import itertools
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from poly_jax.reporting.results_file import ResultsFile
from poly_jax.reporting.table import markdown_table
from poly_jax.study.seeds import over_seeds, shown
from poly_jax.study.zero_shot_entries import ENTRIES, FORMS, REFERENCE, UNIFORM, Entry
from poly_jax.tasks.skillbench.descriptions import Wording

Scores = Float[np.ndarray, "seeds"]


def summarise(results: ResultsFile, seeds: Sequence[int]) -> str:
    """Tables in Markdown: scores of every way to answer, and paired differences from the uniform mix.

    A method has the figures of the seeds for which it is complete.
    """
    return "\n".join(
        ["### Scores\n", _scores(results, seeds), "### Differences\n", _differences(results, seeds)]
    )


def complete_seeds(results: ResultsFile, entry: Entry, seeds: Sequence[int]) -> list[int]:
    """The seeds for which the file has all results of a method."""
    keys = [
        {"stage": "zero-shot", "form": form, "answer": answer, "method": entry.method.name}
        for form, answer in itertools.product(FORMS, entry.answers)
        if entry.has_answer(answer, form)
    ]
    return [seed for seed in seeds if all({**key, "seed": seed} in results for key in keys)]


def _heldout(
    results: ResultsFile, entry: Entry, answer: str, form: Wording, seeds: Sequence[int]
) -> Scores | None:
    """Scores on held-out tasks, one for each seed; None where there is no such answer."""
    if not seeds or not entry.has_answer(answer, form):
        return None
    key = {"stage": "zero-shot", "form": form, "method": entry.method.name, "answer": answer}
    return over_seeds(results, "heldout", seeds, **key)


def _scores(results: ResultsFile, seeds: Sequence[int]) -> str:
    rows = []
    for entry in ENTRIES:
        name, own = entry.method.name, complete_seeds(results, entry, seeds)
        if not own:
            continue
        seen = over_seeds(results, "seen", own, stage="seen", method=name)
        found = next(result for _, result in results.matching(stage="seen", method=name, seed=own[0]))
        first = [name, f"{found['trained']:,}", f"{found['rate']:g}", str(len(own)), shown(seen)]
        for answer in entry.answers:
            scores = [shown(_heldout(results, entry, answer, form, own)) for form in FORMS]
            rows.append([*first, answer, *scores])
            first = [""] * len(first)
    columns = ("method", "trained", "rate", "seeds", "seen tasks", "answers new tasks by")
    return markdown_table((*columns, *(f"new tasks, {form}" for form in FORMS)), rows)


def _differences(results: ResultsFile, seeds: Sequence[int]) -> str:
    (reference,) = [entry for entry in ENTRIES if entry.method.name == REFERENCE[0]]
    known = complete_seeds(results, reference, seeds)
    rows = []
    for entry in ENTRIES:
        own = complete_seeds(results, entry, known)
        for answer in entry.answers:
            if not own or (entry.method.name, answer) == REFERENCE:
                continue
            cells = []
            for form in FORMS:
                scores = _heldout(results, entry, answer, form, own)
                uniform = _heldout(results, reference, REFERENCE[1], form, own)
                cells.append("-" if scores is None or uniform is None else shown(scores - uniform))
            rows.append([f"{entry.method.name}, {answer}", str(len(own)), *cells])
    first = f"minus the {UNIFORM} of {REFERENCE[0]}"
    return markdown_table((first, "seeds", *(f"new tasks, {form}" for form in FORMS)), rows)
