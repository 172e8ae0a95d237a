"""`poly-jax sweep`: resumable adaptations over tasks, methods and seeds, as a table and a bar plot."""

import contextlib
import dataclasses
from collections.abc import Collection, Sequence
from typing import Any

import jax
from etils import epath
from jax.sharding import Mesh

from poly_jax.configuration import Configuration, Loaded, Reach, binding_name, check_read
from poly_jax.counts import check_counts
from poly_jax.data.trimmed import widths
from poly_jax.errors import UserError
from poly_jax.files.whole_file import write_whole
from poly_jax.reporting.output_folder import RESULTS, check_output_folder
from poly_jax.reporting.results_file import Result, ResultsFile
from poly_jax.reporting.table import print_table
from poly_jax.sweep.adapted import Adapting, Job
from poly_jax.sweep.cells import Cell, column, configuration_digest
from poly_jax.sweep.method import Method
from poly_jax.sweep.progress import SweepProgress
from poly_jax.sweep.readings import Readings
from poly_jax.sweep.scoring import check_scorable
from poly_jax.sweep.summary import Summary
from poly_jax.training.guards import check_seeds
from poly_jax.training.hosts import on_first_host
from poly_jax.training.mesh import check_batch_size
from poly_jax.training.open_run import OpenRun, open_run
from poly_jax.training.run_folder import locked
from poly_jax.training.saved_steps import step_folder
from poly_jax.training.vocabulary_room import check_vocabularies
from poly_jax.transfer.new_adapters import new_adapters
from poly_jax.transfer.settings import Settings, adapting_settings, configured_parts
from poly_jax.transfer.start import check_old_tasks

MARKDOWN, LATEX, PICTURE = "summary.md", "summary.tex", "summary.png"


def sweep(
    output_dir: str,
    configuration: Configuration,
    tasks: Sequence[str],
    methods: Sequence[Method],
    seeds: Sequence[int] = (0, 1, 2),
    split: str = "test",
    train_split: str | None = None,
    metric: str | None = None,
    stack: int = 32,
    batch_size: int = 32,
) -> Summary:
    """Adapt every method to every task with every seed, score each, and write a table and a bar plot.

    Each adaptation is a line of `results.jsonl` as soon as it is scored; a rerun does not compute it again.
    At the end, `summary.md`, `summary.tex` and `summary.png` are written. Hosts share all
    batches, and host 0 writes.

    Args:
      output_dir: folder of the sweep.
      configuration: the user's gin files and bindings, loaded on top of each run's own configuration.
      tasks: registered seqio tasks; "{seed}" in a name stands for the seed, where each seed has its own data.
      methods: the table's rows.
      seeds: the seed of each adaptation, for its fresh row, batches, dropout and sampling.
      split: the split that is scored.
      train_split: the split of the few-shot examples, with "{seed}" for the seed; None for
        `adapt.split_name`.
      metric: metric of the tasks that the table shows; None for the first of each task.
      stack: largest number of adaptations in one program, which bounds its memory.
      batch_size: examples per batch of the evaluation.

    Returns:
      The table.

    Raises:
      UserError: a task, run, variant or metric is unknown or does not fit the others, or the folder holds the
        files of a run or of another program. It is raised before anything is computed.
    """
    check_counts("sweep", stack=stack, batch_size=batch_size)
    _check_table(tasks, methods, seeds)
    check_output_folder(output_dir, "sweep")
    folder, readings = epath.Path(output_dir), Readings()
    results = ResultsFile(folder / RESULTS, writes=jax.process_index() == 0)
    cells = [Cell(task, seed) for task in tasks for seed in seeds]
    keys, named, jobs = {}, [], []
    reaches: list[Reach] = []
    opened: dict[str, OpenRun] = {}
    for given in methods:
        loaded = configuration.load(run=given.run)
        method = _checked(given, _settings(given, loaded), cells, split, batch_size)
        settings = _settings(method, loaded)
        reaches.append(loaded.reach("sweep", "adapt", *configured_parts(settings.variant)))
        named.append(method)
        _check_labels(named)
        used = train_split or settings.split_name
        digest = configuration_digest(loaded, method, step_folder(method.run).name, used, split)
        for cell in cells:
            key = {"method": method.label, "task": cell.column, "seed": cell.seed, "setup": digest}
            keys[method.label, cell] = key
            _check_known(results.get(key), cell, output_dir)
            if metric is not None:
                names = (results.get(key) or {}).get("metrics")
                if names is None:
                    names = readings.scorer(settings.experiment, cell.seqio_task, split).metric_names
                _check_metric(metric, names, cell)
            if key not in results:
                if method.run not in opened:
                    opened[method.run] = open_run(method.run, settings.experiment)
                examples_of = used.replace("{seed}", str(cell.seed))
                jobs.append(Job(method, settings, cell, opened[method.run], examples_of))
    # A setting of one method's router is nothing to a method with another.
    check_read(loaded.given, reaches)
    with contextlib.ExitStack() as held:

        def take() -> None:
            folder.mkdir(parents=True, exist_ok=True)
            held.enter_context(locked(folder))

        # Every host has read the same results before the first new one is written.
        on_first_host(take)
        progress = held.enter_context(SweepProgress(len(keys) - len(jobs), len(keys)))
        for sharing in _sharing(jobs, readings):
            mesh = _mesh(sharing[0].settings, batch_size)
            adapting = Adapting.of(sharing, mesh, split, batch_size)
            progress.begin(sharing)
            for first in range(0, len(sharing), stack):
                some = sharing[first : first + stack]
                for job, result in adapting.results(some, readings, progress.advance):
                    key = keys[job.method.label, job.cell]
                    results.add(key, {**result, "seqio_task": job.cell.seqio_task})
                    _check_metric(metric, result["metrics"], job.cell)
                    progress.finish(job, result)
    scores = {}
    for (label, cell), key in keys.items():
        scored = results.get(key)
        assert scored is not None
        metrics = scored["metrics"]
        scores[label, cell.column, cell.seed] = metrics[metric or next(iter(metrics))]
    summary = Summary.of([method.label for method in named], [column(task) for task in tasks], seeds, scores)
    _write(folder, summary, metric or "score")
    return summary


def _check_table(tasks: Sequence[str], methods: Sequence[Method], seeds: Sequence[int]) -> None:
    """Raise a UserError if these do not make a table."""
    for name, values in (("tasks", tasks), ("methods", methods), ("seeds", seeds)):
        if not values or len(set(values)) < len(values):
            shown = [value.said if isinstance(value, Method) else value for value in values]
            raise UserError(f"sweep.{name} is {tuple(shown)}; give at least one, and each once")
    named: dict[str, str] = {}
    for task in tasks:
        other = named.setdefault(column(task), task)
        if other != task:
            raise UserError(
                f"sweep.tasks has {other!r} and {task!r}, which are both {column(task)!r} in tables and "
                "results; give each a sweep of its own"
            )
    _check_labels(methods)
    check_seeds("a seed of sweep.seeds", seeds)


def _check_labels(methods: Sequence[Method]) -> None:
    """Raise a UserError if two methods have the same name in the table."""
    labels = [method.label for method in methods]
    if len(set(labels)) < len(labels):
        raise UserError(f"sweep.methods have the names {', '.join(labels)}; give each its own Method.name")


def _settings(method: Method, loaded: Loaded) -> Settings:
    """The settings of adapting in the configurations of the run and the user, and in the method.

    Raises:
      UserError: as `adapting_settings`; or rows are to start in a way that only `Method` can say.
    """
    if loaded.bound("adapt").get("init_router_from"):
        raise UserError(
            "adapt.init_router_from is bound, which a sweep does not read; bind Method.init_router_from of"
            " the methods in sweep.methods whose rows should start so"
        )
    if any(binding_name(*key) == "adapt.seed" for key in loaded.given):
        raise UserError("--gin.adapt.seed is given, which a sweep does not read; give its seeds with --seeds")
    settings = adapting_settings(loaded, method.variant)
    rates = {
        name: getattr(method, name)
        for name in ("learning_rate", "router_learning_rate")
        if getattr(method, name) is not None
    }
    own = {
        name: getattr(method, name) for name in ("steps", "batch_size") if getattr(method, name) is not None
    }
    return dataclasses.replace(settings, optimizer=dataclasses.replace(settings.optimizer, **rates), **own)


def _checked(
    method: Method, settings: Settings, cells: Sequence[Cell], split: str, batch_size: int
) -> Method:
    """The method, with its variant under the name that fits its run.

    Raises:
      UserError: the variant does not suit the run, a task cannot be scored, or the mesh does not divide the
        devices, the run's T5 or a batch.
    """
    experiment = settings.experiment
    _mesh(settings, batch_size)
    experiment.data.register_tasks()
    for cell in cells:
        check_scorable(cell.seqio_task, split)
        check_vocabularies(cell.seqio_task, experiment.model)
    adapters = experiment.adapters
    if adapters is not None:
        adapters = dataclasses.replace(adapters, n_tasks=2)
    variant = settings.variant.named_for(adapters)
    new_adapters(variant, adapters)
    check_old_tasks(variant, method.init_router_from)
    return dataclasses.replace(method, variant=variant.name)


def _check_known(known: Result | None, cell: Cell, output_dir: str) -> None:
    """Check a result that the sweep's folder already has for a cell.

    Raises:
      UserError: it lacks its scores, or is for another task of the same column, with or without "{seed}".
    """
    if known is None:
        return
    metrics = known.get("metrics")
    if not isinstance(metrics, dict) or not metrics or not all(map(_is_score, metrics.values())):
        raise UserError(
            f"{output_dir}/{RESULTS} has a result of task {cell.column!r}, seed {cell.seed}, whose metrics"
            " are not numbers; delete the line"
        )
    task = known.get("seqio_task", cell.seqio_task)
    if task != cell.seqio_task:
        raise UserError(
            f"{output_dir} has results of task {task!r} under the name {cell.column!r}, which is "
            f"{cell.seqio_task!r} now; give another output_dir"
        )


def _is_score(value: Any) -> bool:
    # None stands for a metric that is not defined for these predictions.
    return value is None or isinstance(value, int | float)


def _sharing(jobs: Sequence[Job], readings: Readings) -> list[list[Job]]:
    """The jobs in groups that share a program; those with fewer steps come first in a group.

    A group's examples have the same lengths, to which the program would otherwise pad them.
    """
    groups: list[tuple[Any, list[Job]]] = []
    for job in jobs:
        shared = (job.program, widths(job.examples(readings)))
        group = next((group for other, group in groups if shared == other), None)
        if group is None:
            groups.append((shared, [job]))
        else:
            group.append(job)
    # Adaptations of one program wait for the longest of them.
    return [sorted(part, key=lambda job: job.steps) for _, group in groups for part in _by_skills(group)]


def _by_skills(group: Sequence[Job]) -> list[Sequence[Job]]:
    """The jobs by run where routers alone are trained, on skills that all share in place of copies."""
    if any(job.settings.variant.trainable != "router" for job in group):
        return [group]
    runs = dict.fromkeys(job.method.run for job in group)
    return [[job for job in group if job.method.run == run] for run in runs]


def _mesh(settings: Settings, batch_size: int) -> Mesh:
    experiment = settings.experiment
    mesh = settings.partitioning.mesh_for(experiment.model, experiment.adapters)
    check_batch_size(batch_size, mesh)
    return mesh


def _check_metric(metric: str | None, names: Collection[str] | None, cell: Cell) -> None:
    """Raise a UserError if the metrics of a task are known and lack the sweep's metric."""
    if metric is not None and names is not None and metric not in names:
        raise UserError(f"task {cell.column!r} has no metric {metric!r}; it has {', '.join(names)}")


def _write(folder: epath.Path, summary: Summary, metric: str) -> None:
    if jax.process_index() != 0:
        return
    write_whole(folder / MARKDOWN, summary.markdown())
    write_whole(folder / LATEX, summary.latex())
    # matplotlib is imported for the picture alone, since every program imports this module.
    from poly_jax.sweep.bar_plot import save_bar_plot

    save_bar_plot(folder / PICTURE, summary, metric)
    print_table("Median over seeds; mean over tasks", summary.columns, summary.rows)
    print(f"outputs: {folder} ({RESULTS}, {MARKDOWN}, {LATEX}, {PICTURE})")
