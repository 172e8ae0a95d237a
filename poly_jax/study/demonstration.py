"""`poly-jax demo`: the method at work in a few minutes, on one CPU, without any data."""

import json
import sys
import time
from collections.abc import Sequence

import numpy as np
from etils import epath

from poly_jax.analysis.agreement import agreement
from poly_jax.analysis.router_plot import save_router_plot
from poly_jax.analysis.weights import mixing_weights, task_vectors
from poly_jax.study.methods import MHR, POLY, SHARED
from poly_jax.study.rates import Adaptation
from poly_jax.study.runs import Trained, adapt_tasks, seen_score, train_method
from poly_jax.study.table import markdown_table, print_table
from poly_jax.tasks.skillbench.compositions import benchmark, skill_matrix
from poly_jax.tasks.skillbench.tasks import registered_name

_COLUMNS = ("method", "trained on 32 tasks", "seen tasks", "adapts", "per new task", "held-out tasks")
_SHORTER = ("train.steps = 250", "train.report_every = 50")
_STEPS = 60
# As chosen in docs/embedded_benchmark.md: the router's rate for -z, else that of the skills.
_RATES = {"mhr": 1e-3, "mhr-z": 0.03, "mhr-mu": 1e-3, "poly": 1e-3, "shared": 1e-3}


def demo(output_dir: str, bindings: Sequence[str] = ()) -> None:
    """Trains MHR, Poly and a shared LoRA alike, adapts each to new tasks, and shows what the router found.

    Args:
      output_dir: gets a run folder per method, `table.md`, `results.json` and `router_<method>.png`. Runs
        that are there already are not trained again.
      bindings: gin bindings on top of the recipes, such as "train.steps=100".
    """
    started = time.perf_counter()
    folder = epath.Path(output_dir)
    rows, results = [], []
    bench = benchmark()
    for method, variants in ((MHR, ("mhr", "mhr-z", "mhr-mu")), (POLY, ("poly",)), (SHARED, ("shared",))):
        _say(f"{method.name}: training on {len(bench.train)} tasks")
        run = folder / method.recipe.split("/")[-1].removesuffix(".gin")
        trained = train_method(method, run, seed=0, bindings=(*_SHORTER, *bindings))
        seen = seen_score(trained)
        for variant in variants:
            _say(f"{variant}: adapting to {len(bench.heldout)} held-out tasks, 16 examples each")
            optimizer = Adaptation(variant).optimizer(_RATES[variant])
            adapted = adapt_tasks(trained, variant, bench.heldout, optimizer=optimizer, steps=_STEPS)
            per_task = (variant, f"{adapted.n_trained:,}", f"{adapted.mean:.1f}")
            rows.append((method.name, f"{trained.n_trained:,}", f"{seen:.1f}", *per_task))
            results.append(
                {"method": method.name, "variant": variant, "seen": seen, "heldout": adapted.exact_match}
                | {"trained": trained.n_trained, "trained_per_task": adapted.n_trained}
            )
        if method is not SHARED:
            _plot(trained, folder)
    print_table("Exact match on the embedded benchmark, in percent", _COLUMNS, rows)
    (folder / "table.md").write_text(markdown_table(_COLUMNS, rows))
    (folder / "results.json").write_text(json.dumps(results, indent=1) + "\n")
    _say(f"took {time.perf_counter() - started:.0f} s")
    print(
        f"outputs: {folder} (table.md, results.json, router_mhr.png, router_poly.png, and a run per method)"
    )


def _plot(trained: Trained, folder: epath.Path) -> None:
    model, table = trained.restored.model, trained.restored.table
    assert model.adapters is not None
    weights = mixing_weights(model.adapters, trained.restored.parameters)
    tasks = {registered_name(task.name): task for task in benchmark().train}
    ordered = [tasks[name] for name in table.names]
    skills = skill_matrix(ordered).astype(np.int64)
    found = agreement(task_vectors(weights), skills)
    inventory = benchmark().inventory
    save_router_plot(
        folder / f"router_{trained.method.name.lower()}.png",
        weights,
        [f"{task.name} ({'+'.join(inventory.skill_names[s] for s in task.skills)})" for task in ordered],
        skills,
        inventory.skill_names,
        f"{trained.method.name}: task similarity against shared true skills, r = {found.correlation:.2f}"
        f" (p = {found.permutation_p:.3f}), adjusted Rand index {found.adjusted_rand:.2f}",
    )


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
