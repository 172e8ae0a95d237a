"""`poly-jax reproduce`: all methods on the embedded benchmark over several seeds."""

import dataclasses
from collections.abc import Sequence

from etils import epath

from poly_jax.reporting.output_folder import RESULTS, check_output_folder
from poly_jax.reporting.results_file import ResultsFile
from poly_jax.study.bindings import check_bindings
from poly_jax.study.comparison import Comparison, keep_compiled
from poly_jax.study.methods import LEARNED_ROUTERS, METHODS, MHR, POLY, SHARED, SHARED_WIDE, MultitaskMethod
from poly_jax.study.summary import summarise
from poly_jax.tasks.skillbench.examples import Form

# Without names a shared adapter cannot know the task, so this form is only reported beside the other.
_NAMELESS = tuple(
    dataclasses.replace(method, adaptations=method.adaptations[:1])
    for method in (MHR, POLY, SHARED, SHARED_WIDE)
)


def reproduce(output_dir: str, seeds: Sequence[int] = (0, 1, 2, 3, 4), bindings: Sequence[str] = ()) -> None:
    """Choose learning rates, train and adapt every method with every seed, and write the tables.

    Args:
      output_dir: folder of the runs, `results.jsonl` and `summary.md`. A rerun computes only what is missing.
      seeds: seeds of the adapters, the data and their order.
      bindings: gin bindings on top of the recipes.

    Raises:
      UserError: the folder holds a training run, or the files of another program; or no method reads a
        binding.
    """
    check_bindings(METHODS, bindings)
    check_output_folder(output_dir, "reproduce")
    folder = epath.Path(output_dir)
    folder.mkdir(parents=True, exist_ok=True)
    keep_compiled(folder)
    results = ResultsFile(folder / RESULTS)
    comparison = Comparison(folder, results, tuple(bindings))
    forms: dict[Form, Sequence[MultitaskMethod]] = {"named": METHODS, "nameless": _NAMELESS}
    for form, methods in forms.items():
        for seed in seeds:
            for method in methods:
                router = form == "named" and method in LEARNED_ROUTERS
                comparison.run(method, form, seed, router=router)
    text = summarise(results, seeds)
    (folder / "summary.md").write_text(text)
    print(text)
    print(f"outputs: {folder} (summary.md, results.jsonl, and a run per method, form and seed)")
