"""The program `plan`: compiles a run's steps for accelerators and reports what they take."""

import contextlib
import sys
import time
from collections.abc import Iterator

from poly_jax.data.task_table import TaskTable
from poly_jax.errors import UserError
from poly_jax.files.whole_file import check_writable, write_whole
from poly_jax.launch.mesh_check import check_mesh, check_rows
from poly_jax.planning import texts
from poly_jax.planning.abstract_run import AbstractRun, table_of
from poly_jax.planning.formats import Format
from poly_jax.planning.page import page
from poly_jax.planning.plan import Accelerators, Program, make_plan
from poly_jax.planning.report import Report
from poly_jax.planning.search import largest_batch
from poly_jax.planning.suggestion import Layout, suggest
from poly_jax.reporting.json_text import json_text
from poly_jax.reporting.table import markdown_table, print_table
from poly_jax.training.guards import registered_table

_COLUMNS = (
    *("slice", "chips", "mesh", "rows", "frozen", "trained + optimizer", "activations", "peak"),
    *("fits", "GFLOP a chip", "at peak", "ICI GB a step"),
)


def plan(
    run: AbstractRun,
    accelerators: Accelerators,
    tasks: int | None = None,
    programs: tuple[Program, ...] = ("train",),
    decode_batch_size: int = 32,
    share_of_peak: float = 0.4,
    search: bool = False,
    format: Format = "text",
    html: str | None = None,
) -> list[Report]:
    """Plan a run and print the plan.

    Args:
      run: the run.
      accelerators: accelerators that it is to run on.
      tasks: number of tasks; None to register the run's mixture and count its tasks.
      programs: programs to compile.
      decode_batch_size: number of rows that the evaluation predicts at once.
      share_of_peak: share of a chip's peak that matrix products are assumed to reach.
      search: whether to find the largest batch of each program and to compile the suggestion, which takes
        several compilations.
      format: form of what is printed; "markdown" gives the rows of a table, without advice.
      html: path of an HTML page to write too.

    Returns:
      A report for each program.

    Raises:
      UserError: the run, the mesh, the batch or the topology is not possible, or libtpu is missing.
    """
    if not 0 < share_of_peak <= 1:
        raise UserError(f"--share_of_peak={share_of_peak:g} must be above 0 and at most 1")
    if html is not None:
        check_writable(html)
    run.check()
    _check_layout(run, accelerators, programs, decode_batch_size)
    table = table_of(tasks) if tasks is not None else registered_table(run.experiment, run.data.mixture)
    reports = [
        _report(
            run, table, accelerators, program, decode_batch_size, share_of_peak, search, format != "markdown"
        )
        for program in programs
    ]
    _print(reports, format)
    if html is not None:
        write_whole(html, page(reports))
    return reports


def _check_layout(
    run: AbstractRun, accelerators: Accelerators, programs: tuple[Program, ...], decode_batch_size: int
) -> None:
    """Refuse what cannot be laid over the devices, before a program is compiled, which takes minutes."""
    name, devices = accelerators.slice.name, accelerators.devices
    slices = name if accelerators.slices == 1 else f"{accelerators.slices} slices {name}"
    check_mesh(run.partitioning, run.experiment.model, accelerators.slice.devices, name)
    if "train" in programs:
        check_rows(
            "Data.batch_size", run.data.batch_size, run.partitioning, devices, slices, run.microbatches
        )
    if "decode" in programs:
        check_rows("evaluate.batch_size", decode_batch_size, run.partitioning, devices, slices)


def _report(
    run: AbstractRun,
    table: TaskTable,
    accelerators: Accelerators,
    program: Program,
    decode_batch_size: int,
    share_of_peak: float,
    search: bool,
    advise: bool,
) -> Report:
    name = accelerators.slice.name
    with _told(f"compiling the {program} step for {name}"):
        found = make_plan(run, table, accelerators, program, decode_batch_size)
    layout = Layout.of(run)
    suggestion = suggested = largest = None
    if advise and program == "train":
        suggestion = suggest(run, table, found, share_of_peak)
        if search and suggestion is not None and suggestion.layout != layout:
            with _told("compiling the suggestion"):
                suggested = make_plan(suggestion.layout.applied(run), table, accelerators)
    if advise and search:
        with _told("searching for the largest batch"):
            largest = largest_batch(run, table, found)
    return Report(found, run.steps, share_of_peak, layout, suggestion, suggested, largest)


def _print(reports: list[Report], format: Format) -> None:
    if format == "json":
        fields = {report.plan.program: report.fields() for report in reports}
        print(json_text(fields if len(fields) > 1 else next(iter(fields.values())), indent=1))
        return
    if format == "markdown":
        print(markdown_table(_COLUMNS, [texts.markdown_row(report) for report in reports]), end="")
        return
    for report in reports:
        print(texts.headline(report))
        for line in texts.notes(report):
            print(line)
        table = texts.memory_table(report)
        print_table(table.title, table.columns, table.rows, table.n_texts)
        for line in (report.verdict(), *texts.work(report)):
            print(line)
        for table in texts.collective_tables(report):
            print_table(table.title, table.columns, table.rows, table.n_texts)
        for line in report.advice():
            print(line)


@contextlib.contextmanager
def _told(what: str) -> Iterator[None]:
    print(f"{what} ...", file=sys.stderr, flush=True)
    began = time.perf_counter()
    yield
    print(f"took {time.perf_counter() - began:.0f} s", file=sys.stderr, flush=True)
