"""`poly-jax reproduce`: all methods on the embedded benchmark over several seeds."""

import dataclasses
import functools
import sys
from collections.abc import Sequence

import jax
import numpy as np
from etils import epath

from poly_jax.analysis.agreement import agreement
from poly_jax.analysis.weights import mixing_weights, task_vectors
from poly_jax.reporting.output_folder import RESULTS, check_output_folder
from poly_jax.reporting.results_file import Result, ResultsFile
from poly_jax.study.methods import LEARNED_ROUTERS, METHODS, MHR, POLY, SHARED, SHARED_WIDE, MultitaskMethod
from poly_jax.study.rates import TUNING_SEED, Adaptation, choose_adaptation_rate, choose_multitask_rate
from poly_jax.study.runs import Trained, adapt_tasks, seen_score, train_method
from poly_jax.study.summary import summarise
from poly_jax.tasks.skillbench.compositions import benchmark, skill_matrix, tasks_of
from poly_jax.tasks.skillbench.examples import Form

# Without names a shared adapter cannot know the task, so this form is only reported beside the other.
_NAMELESS = tuple(
    dataclasses.replace(method, variants=method.variants[:1]) for method in (MHR, POLY, SHARED, SHARED_WIDE)
)


def reproduce(output_dir: str, seeds: Sequence[int] = (0, 1, 2, 3, 4), bindings: Sequence[str] = ()) -> None:
    """Choose learning rates, train and adapt every method with every seed, and write the tables.

    Args:
      output_dir: folder of the runs, `results.jsonl` and `summary.md`. A rerun computes only what is missing.
      seeds: seeds of the adapters, the data and their order.
      bindings: gin bindings on top of the recipes.

    Raises:
      UserError: the folder holds a training run, or the files of another program.
    """
    check_output_folder(output_dir, "reproduce")
    folder = epath.Path(output_dir)
    folder.mkdir(parents=True, exist_ok=True)
    # Every seed runs the same programs, so a compilation cache saves time.
    jax.config.update("jax_compilation_cache_dir", str((folder / "compiled").absolute()))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 1.0)
    results = ResultsFile(folder / RESULTS)
    study = _Study(folder, results, tuple(bindings))
    forms: dict[Form, Sequence[MultitaskMethod]] = {"named": METHODS, "nameless": _NAMELESS}
    for form, methods in forms.items():
        for seed in seeds:
            for method in methods:
                study.run(method, form, seed)
    text = summarise(results, seeds)
    (folder / "summary.md").write_text(text)
    print(text)
    print(f"outputs: {folder} (summary.md, results.jsonl, and a run per method, form and seed)")


@dataclasses.dataclass(frozen=True)
class _Study:
    folder: epath.Path
    results: ResultsFile
    bindings: tuple[str, ...]

    def run(self, method: MultitaskMethod, form: Form, seed: int) -> None:
        """Train a method with one seed, and score it on seen and on held-out tasks."""
        rate = self.rate(method)

        trained = functools.partial(self.train, method, form, seed, rate)
        key = {"form": form, "method": method.name, "seed": seed}
        self.once(
            {"stage": "seen", **key}, lambda: {"seen": seen_score(trained()), "trained": trained().n_trained}
        )
        for variant in method.variants:
            chosen = choose_adaptation_rate(
                method, variant, lambda: self.train(method, "named", TUNING_SEED, rate), self.results
            )

            def adapt(variant: str = variant, chosen: float = chosen) -> Result:
                adaptation = Adaptation(variant)
                adapted = adapt_tasks(
                    trained(),
                    variant,
                    benchmark().heldout,
                    optimizer=adaptation.optimizer(chosen),
                    steps=adaptation.steps,
                )
                return {"rate": chosen, "heldout": adapted.mean, "loss": adapted.loss} | {
                    "per_task": adapted.exact_match,
                    "trained": adapted.n_trained,
                }

            self.once({"stage": "heldout", "variant": variant, **key}, adapt)
        if method in LEARNED_ROUTERS and form == "named":
            self.once({"stage": "router", **key}, lambda: _agreement(trained()))

    def rate(self, method: MultitaskMethod) -> float:
        """The learning rate of a method's training on many tasks."""
        return choose_multitask_rate(
            method, lambda rate: self.train(method, "named", TUNING_SEED, rate), self.results
        )

    def train(self, method: MultitaskMethod, form: Form, seed: int, rate: float) -> Trained:
        """A run of a method; the two most recently used runs are kept in memory."""
        return _train(self.folder, self.bindings, method, form, seed, rate)

    def once(self, key: Result, compute) -> None:
        result = self.results.once(key, compute)
        shown = {name: value for name, value in result.items() if not isinstance(value, dict)}
        print(*key.values(), shown, file=sys.stderr, flush=True)


@functools.lru_cache(maxsize=2)
def _train(
    folder: epath.Path, bindings: tuple[str, ...], method: MultitaskMethod, form: Form, seed: int, rate: float
) -> Trained:
    return train_method(
        method,
        folder / "runs" / f"{method.run_name}-{form}-rate{rate:g}-seed{seed}",
        seed=seed,
        form=form,
        bindings=(*bindings, f"Optimizer.learning_rate = {rate}", "train.report_every = 200"),
    )


def _agreement(trained: Trained) -> Result:
    restored = trained.restored
    assert restored.model.adapters is not None
    skills = skill_matrix(tasks_of(restored.table.names)).astype(np.int64)
    vectors = task_vectors(mixing_weights(restored.model.adapters, restored.parameters))
    return dataclasses.asdict(agreement(vectors, skills))
