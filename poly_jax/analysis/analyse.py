"""`poly-jax routing`: what a run's router learned, as numbers, figures and an HTML page."""

import dataclasses

from etils import epath

from poly_jax.analysis import figures
from poly_jax.analysis.findings import Findings, findings_of, plain
from poly_jax.analysis.gradient_alignment import measure_alignment
from poly_jax.analysis.initial_values import initial_values
from poly_jax.analysis.load import measure_load
from poly_jax.analysis.page import page
from poly_jax.analysis.reference import read_grouping
from poly_jax.analysis.router_plot import router_figure
from poly_jax.errors import UserError
from poly_jax.experiment import Experiment
from poly_jax.files.whole_file import write_whole
from poly_jax.reporting.json_text import json_text
from poly_jax.reporting.output_folder import check_output_folder
from poly_jax.training.mesh import Partitioning
from poly_jax.training.open_run import open_run
from poly_jax.training.restore import restore
from poly_jax.training.saved_steps import step_folder
from poly_jax.transfer.adapted_from import AdaptedFrom

_EXAMPLES = 64
"""Number of examples of each task that show the mix of a router that looks at inputs, unless it is given."""


def analyse_routing(
    run: str,
    output_dir: str,
    experiment: Experiment,
    reference: str | None = None,
    gradients: int | None = None,
    examples: int | None = None,
    adapted: AdaptedFrom | None = None,
) -> None:
    """Write `routing.json`, `routing.html` and the page's figures as PNGs.

    Only the comparison of gradients, and routers that look at inputs, need the backbone and the data.

    Args:
      run: folder of the run, or of one of its checkpoints.
      output_dir: folder of the files; the files of an earlier analysis are replaced.
      experiment: the run's experiment.
      reference: file of a grouping of the tasks to compare with; see `poly_jax.analysis.reference`.
      gradients: number of examples per task whose gradients are compared; None for no such comparison.
      examples: number of examples per task whose inputs a router looks at; None for 64 of them.
      adapted: the start of the run, if it is an adapted run.

    Raises:
      UserError: the run has no adapters, `examples` is given for a router of tasks, the folder belongs to
        another program, or the files or the data cannot be used.
    """
    check_output_folder(output_dir, "routing")
    step = step_folder(run)
    if experiment.adapters is None:
        raise UserError(f"{run} has no adapters, so there is no routing to analyse; give a run with adapters")
    opened = open_run(run, experiment)
    names, adapters = opened.table.names, opened.adapters
    assert adapters is not None
    grouping = None if reference is None else read_grouping(reference, names)
    if gradients is not None and len(names) < 2:
        raise UserError(f"--gradients={gradients} compares tasks, and {run} has only one; leave it out")
    if examples is not None and not adapters.router.reads_inputs:
        raise UserError(
            f"--examples={examples} is for routers that look at inputs, and {run} has a"
            f" {type(adapters.router).__name__}, whose weights do not depend on examples; leave it out"
        )
    initial = initial_values(step, experiment.transformer(opened.table), adapted)
    skill_names = adapted.skill_names if adapted is not None else ()
    if adapters.router.owns_skills:
        skill_names = names
    load = None
    if adapters.router.reads_inputs or gradients is not None:
        experiment.data.register_tasks()
        mesh = Partitioning().mesh()
        restored = restore(experiment, run, mesh)
        if adapters.router.reads_inputs:
            load = measure_load(restored, experiment.data, mesh, examples or _EXAMPLES)
    folder = epath.Path(output_dir)
    folder.mkdir(parents=True, exist_ok=True)
    found = findings_of(adapters, names, opened.skills, initial, grouping, skill_names, load)
    if gradients is not None:
        aligned = measure_alignment(restored, experiment.data, mesh, gradients, folder)
        found = dataclasses.replace(found, alignment=aligned)
    pictures = _pictures(found)
    for name, data in pictures.items():
        (folder / f"{name}.png").write_bytes(data)
    summary = {"run": str(run), "step": opened.number, **plain(found)}
    write_whole(folder / "routing.json", json_text(summary) + "\n")
    write_whole(folder / "routing.html", page(found, pictures, str(run), opened.number, gradients))
    print(f"outputs: {folder} (routing.html, routing.json, {', '.join(f'{name}.png' for name in pictures)})")


def _pictures(found: Findings) -> dict[str, bytes]:
    drawn = {
        "layers": figures.measures_figure(found.layers),
        "usage": figures.usage_figure(found.usage, found.skill_names),
    }
    if len(found.names) > 1:
        reference, cut = found.reference, found.clusters
        drawn["tasks"] = router_figure(
            found.weights,
            found.names,
            reference.matrix if reference else None,
            reference.groups if reference else (),
            skills_title="given groups",
            columns=found.skill_names,
        )
        drawn["similarity"] = figures.pairs_figure(
            found.similarity, cut.order, cut.of_task, found.names, f"{found.measure} of mixing weights"
        )
    if found.drift:
        drawn["drift"] = figures.drift_figure(found.drift)
    if found.alignment is not None:
        cut = found.clusters
        drawn["gradients"] = figures.pairs_figure(
            found.alignment.cosines, cut.order, cut.of_task, found.names, "cosine of gradients"
        )
        drawn["gradients_by_layer"] = figures.alignment_figure(found.alignment.of_layer)
    return {name: figures.png(figure) for name, figure in drawn.items()}
