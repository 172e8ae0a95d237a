"""Trains a method and scores it on seen and on new tasks, where a file of results lacks the scores."""

import dataclasses
import functools
import sys
from collections.abc import Callable

import jax
import numpy as np
from etils import epath

from poly_jax.analysis.agreement import agreement
from poly_jax.analysis.weights import mixing_weights, task_vectors
from poly_jax.reporting.results_file import Result, ResultsFile
from poly_jax.study.methods import Adaptation, MultitaskMethod
from poly_jax.study.rates import TUNING_SEED, choose_adaptation_rate, choose_multitask_rate
from poly_jax.study.runs import Trained, adapt_tasks, seen_score, train_method
from poly_jax.tasks.skillbench.compositions import benchmark, skill_matrix, tasks_of
from poly_jax.tasks.skillbench.examples import Form


def keep_compiled(folder: epath.Path) -> None:
    """Keep compiled programs in a study's folder, because every seed runs the same ones."""
    jax.config.update("jax_compilation_cache_dir", str((folder / "compiled").absolute()))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 1.0)


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Computes the results of methods that a file of results lacks.

    Attributes:
      folder: folder of the runs.
      results: the file of results.
      bindings: gin bindings on top of the recipes.
    """

    folder: epath.Path
    results: ResultsFile
    bindings: tuple[str, ...]

    def run(self, method: MultitaskMethod, form: Form, seed: int, *, router: bool = False) -> None:
        """Train a method with one seed, and score it on seen and on held-out tasks.

        `router` says whether to score what its router learned as well.
        """
        rate = self._rate(method)
        trained = functools.partial(self._train, method, form, seed, rate)
        key = {"form": form, "method": method.name, "seed": seed}
        self._once(
            {"stage": "seen", **key}, lambda: {"seen": seen_score(trained()), "trained": trained().n_trained}
        )
        for adaptation in method.adaptations:
            chosen = choose_adaptation_rate(
                method,
                _tuned(method, adaptation),
                lambda: self._train(method, "named", TUNING_SEED, rate),
                self.results,
            )

            def adapt(adaptation: Adaptation = adaptation, chosen: float = chosen) -> Result:
                (adapted,) = adapt_tasks(trained(), adaptation, benchmark().heldout, [chosen])
                return {"rate": chosen, "heldout": adapted.mean, "loss": adapted.loss} | {
                    "per_task": adapted.exact_match,
                    "trained": adapted.n_trained,
                }

            self._once({"stage": "heldout", "variant": adaptation.name, **key}, adapt)
        if router:
            self._once({"stage": "router", **key}, lambda: _agreement(trained()))

    def _rate(self, method: MultitaskMethod) -> float:
        return choose_multitask_rate(
            method, lambda rate: self._train(method, "named", TUNING_SEED, rate), self.results
        )

    def _train(self, method: MultitaskMethod, form: Form, seed: int, rate: float) -> Trained:
        return _train(self.folder, self.bindings, method, form, seed, rate)

    def _once(self, key: Result, compute: Callable[[], Result]) -> None:
        once_shown(self.results, key, compute)


def once_shown(results: ResultsFile, key: Result, compute: Callable[[], Result]) -> None:
    """Compute a result that the file lacks, and show its numbers on standard error in any case."""
    result = results.once(key, compute)
    shown = {name: value for name, value in result.items() if not isinstance(value, dict)}
    print(*key.values(), shown, file=sys.stderr, flush=True)


def _tuned(method: MultitaskMethod, adaptation: Adaptation) -> Adaptation:
    """The adaptation whose learning rate an adaptation has."""
    if adaptation.tuned_as is None:
        return adaptation
    return next(other for other in method.adaptations if other.name == adaptation.tuned_as)


# The two most recently used runs are kept in memory.
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
