"""`poly-jax demo`: a comparison of the methods in a few minutes, on one CPU, without any data."""

import dataclasses
import sys
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
from etils import epath

from poly_jax.analysis.agreement import agreement
from poly_jax.analysis.router_plot import save_router_plot
from poly_jax.analysis.weights import mixing_weights, task_vectors
from poly_jax.reporting.json_text import json_text
from poly_jax.reporting.output_folder import check_output_folder
from poly_jax.reporting.table import markdown_table, print_table
from poly_jax.study.bindings import check_bindings
from poly_jax.study.labels import labelled
from poly_jax.study.methods import RECIPES, SHARED, Adaptation, MultitaskMethod
from poly_jax.study.processes import single_threaded
from poly_jax.study.runs import Trained, adapt_tasks, seen_score, train_method
from poly_jax.tasks.skillbench.compositions import benchmark, skill_matrix, tasks_of

_COLUMNS = ("method", "trained on 32 tasks", "seen tasks", "adapts", "per new task", "held-out tasks")
_LEFT_OUT = (
    "This is one seed, and training stops before its full 400 steps, which costs the shared LoRA and Poly"
    " most; docs/heads.md has five seeds."
)
_SHORTER = ("train.steps = 280", "train.report_every = 40")


@dataclasses.dataclass(frozen=True)
class Compared:
    """A method of the demonstration.

    Attributes:
      method: way to train it.
      adaptations: ways to adapt it to new tasks.
      rates: the learning rate of each: the router's for -z, and otherwise the skills'.
      folder: name of its run.
    """

    method: MultitaskMethod
    adaptations: tuple[Adaptation, ...]
    rates: tuple[float, ...]
    folder: str


# With one router for the whole model, as Polytropon has it, heads give a task more numbers to route by.
_ONE_ROUTER = "Adapters.granularity = 'coarse'"
_MHR = MultitaskMethod(
    "MHR, 32 heads", f"{RECIPES}/mhr.gin", bindings=(_ONE_ROUTER, "Adapters.n_splits = 32")
)
_POLY = MultitaskMethod("Poly, 1 head", f"{RECIPES}/poly.gin", bindings=(_ONE_ROUTER,))
COMPARED = (
    Compared(_MHR, (Adaptation("mhr", "mhr", 60), Adaptation("mhr-z", "mhr-z", 200)), (1e-3, 0.1), "mhr"),
    Compared(
        _POLY, (Adaptation("poly", "poly", 60), Adaptation("poly-z", "poly-z", 60)), (1e-3, 0.3), "poly"
    ),
    Compared(SHARED, (Adaptation("shared", "shared", 60),), (1e-3,), "shared"),
)


def demo(output_dir: str, bindings: Sequence[str] = ()) -> None:
    """Train MHR, Poly and a shared LoRA in the same way, adapt each to new tasks, and plot the routers.

    The routed methods adapt everything, and then the row of the router alone.

    Args:
      output_dir: folder of one run per method, `table.md`, `results.json` and a picture of each router. Runs
        that already exist are not trained again.
      bindings: gin bindings on top of the recipes, such as "train.steps=100".

    Raises:
      UserError: the folder holds a training run, or the files of another program; or no method reads a
        binding.
    """
    check_bindings([compared.method for compared in COMPARED], bindings)
    check_output_folder(output_dir, "demo")
    started = time.perf_counter()
    folder = epath.Path(output_dir)
    jobs = [_Job(compared, output_dir, tuple(bindings)) for compared in COMPARED]
    with single_threaded(len(jobs)) as processes:
        results = [result for found in processes.map(_compare, jobs) for result in found]
    rows = [
        (
            result["method"],
            f"{result['trained']:,}",
            f"{result['seen']:.1f}",
            result["variant"],
            f"{result['trained_per_task']:,}",
            f"{np.mean(list(result['heldout'].values())):.1f}",
        )
        for result in results
    ]
    print_table("Exact match on the embedded benchmark, in percent", _COLUMNS, rows)
    print(_LEFT_OUT)
    (folder / "table.md").write_text(f"{markdown_table(_COLUMNS, rows)}\n{_LEFT_OUT}\n")
    (folder / "results.json").write_text(json_text(results, indent=1) + "\n")
    _say(f"took {time.perf_counter() - started:.0f} s")
    print(
        f"outputs: {folder} (table.md, results.json, router_mhr.png, router_poly.png, and a run per method)"
    )


@dataclasses.dataclass(frozen=True)
class _Job:
    """The part of the demonstration that belongs to one method."""

    compared: Compared
    output_dir: str
    bindings: tuple[str, ...]


def _compare(job: _Job) -> list[dict[str, Any]]:
    """Train a method, plot its router, and score it on seen tasks and, with each adaptation, on new tasks."""
    method = job.compared.method
    with labelled(job.compared.folder):
        bench, folder = benchmark(), epath.Path(job.output_dir)
        _say(f"training on {len(bench.train)} tasks")
        trained = train_method(
            method, folder / job.compared.folder, seed=0, bindings=(*_SHORTER, *job.bindings)
        )
        if method != SHARED:
            _plot(trained, folder / f"router_{job.compared.folder}.png")
        seen = seen_score(trained)
        results = []
        for adaptation, rate in zip(job.compared.adaptations, job.compared.rates, strict=True):
            _say(f"adapting as {adaptation.name} to {len(bench.heldout)} held-out tasks, 16 examples each")
            (adapted,) = adapt_tasks(trained, adaptation, bench.heldout, [rate])
            results.append(
                {"method": method.name, "variant": adaptation.name, "seen": seen}
                | {"heldout": adapted.exact_match, "trained": trained.n_trained}
                | {"trained_per_task": adapted.n_trained}
            )
    return results


def _plot(trained: Trained, path: epath.Path) -> None:
    model, table = trained.restored.model, trained.restored.table
    assert model.adapters is not None
    weights = mixing_weights(model.adapters, trained.restored.parameters)
    ordered = tasks_of(table.names)
    skills = skill_matrix(ordered).astype(np.int64)
    found = agreement(task_vectors(weights), skills)
    inventory = benchmark().inventory
    save_router_plot(
        path,
        weights,
        [f"{task.name} ({'+'.join(inventory.skill_names[s] for s in task.skills)})" for task in ordered],
        skills,
        inventory.skill_names,
        f"{trained.method.name}: task similarity against shared true skills, r = {found.correlation:.2f}"
        f" (p = {found.permutation_p:.3f}), adjusted Rand index {found.adjusted_rand:.2f}",
    )


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
