"""The sentences and tables of a plan, which its text and its page share."""

import dataclasses

from poly_jax.counted import counted
from poly_jax.planning.report import Report, gib, memory_rows

_SHOWN = 12
_LEAST_SHARE = 0.001


@dataclasses.dataclass(frozen=True)
class Table:
    """A table.

    Attributes:
      title: title of the table.
      columns: the headings of its columns.
      rows: its cells.
      n_texts: number of columns, from the left, that are not numbers.
    """

    title: str
    columns: tuple[str, ...]
    rows: list[tuple[str, ...]]
    n_texts: int = 1


def headline(report: Report) -> str:
    """The accelerators, the mesh and the program that a plan is about, in one line."""
    plan, accelerators = report.plan, report.plan.accelerators
    slices = f"{accelerators.slices} x " if accelerators.slices > 1 else ""
    hosts = accelerators.slice.hosts * accelerators.slices
    mesh = " x ".join(f"{axis} {size}" for axis, size in plan.mesh.items())
    what = "training step" if plan.program == "train" else "prediction of a batch"
    count = accelerators.chips
    chips, machines = "chip" if count == 1 else "chips", "host" if hosts == 1 else "hosts"
    return (
        f"{slices}{accelerators.slice.name}: {count} {chips}, {hosts} {machines}; mesh"
        f" {mesh}; {what} of {counted(plan.batch_size, 'row')}"
    )


def notes(report: Report) -> list[str]:
    """The notes on how the figures came about."""
    plan, found = report.plan, []
    if plan.accelerators.simulate:
        found.append(
            "Compiled for CPU devices (--simulate): memory, collectives and fusions differ from a TPU's."
        )
    if plan.compiled_for != plan.accelerators.slice.kind:
        found.append(
            f"Compiled for {plan.compiled_for}, a slice of the same shape, because libtpu describes only one"
            f" of the two cores of a {plan.accelerators.slice.kind} chip, with half of its memory."
        )
    return found


def work(report: Report) -> list[str]:
    """The work of a step and the time that it takes, in sentences."""
    plan, peaks = report.plan, report.plan.accelerators.peaks
    lines = [
        f"Matrix products: {plan.dot_flops_per_chip / 1e9:,.1f} GFLOP a chip, {seconds(plan.seconds_at_peak)}"
        f" at the peak of {peaks.bfloat16 / 1e12:,.0f} TFLOP/s."
    ]
    share = plan.float32_flops_per_chip / (plan.dot_flops_per_chip or 1)
    if share >= _LEAST_SHARE:
        lines.append(f"{share:.1%} of them have an operand in float32, which is slower than the peak.")
    if plan.compiled_flops_per_chip and plan.compiled_flops_per_chip > 1.05 * plan.dot_flops_per_chip:
        times = plan.compiled_flops_per_chip / plan.dot_flops_per_chip
        lines.append(f"The chips repeat each other's work: they compute {times:.2f} times as much.")
    sent = report.seconds_sent
    for network, least in sent.items():
        if least:
            lines.append(
                f"Collectives over {network.upper()}: {plan.bytes_sent(network) / 1e6:,.1f} MB a step, at"
                f" least {seconds(least)} at the links' peak."
            )
    if max(sent.values()) > report.seconds:
        lines.append(
            f"The collectives take longer than that work at {report.share_of_peak:.0%} of the peak: the times"
            " below are too short."
        )
    if plan.program == "train":
        lines.append(
            f"At {report.share_of_peak:.0%} of the peak: {report.steps_per_hour:,.0f} steps an hour;"
            f" {report.steps:,} steps take {report.hours:,.2f} hours, {report.chip_hours:,.2f} chip-hours."
        )
    else:
        lines.append(
            f"At {report.share_of_peak:.0%} of the peak: {report.steps_per_hour:,.0f} batches an hour."
        )
    return lines


def memory_table(report: Report) -> Table:
    """The bytes of a chip by kind."""
    return Table("memory of a chip", ("kind", "size"), memory_rows(report.plan.memory))


def collective_tables(report: Report) -> list[Table]:
    """The largest collectives, and those that reshard activations."""
    columns = ("kind", "shape", "from", "network", "count", "MB")
    tables = []
    for title, found in (
        ("collectives of a step", report.plan.collectives or []),
        ("of these, activations that are only resharded", report.plan.reshards),
    ):
        if not found:
            continue
        shown = found[:_SHOWN]
        rows: list[tuple[str, ...]] = [
            (
                each.kind,
                each.shape + (f" and {each.arrays - 1} more" if each.arrays > 1 else ""),
                each.source or "unknown",
                each.network.upper(),
                f"{each.count:,}",
                f"{each.bytes / 1e6:,.2f}",
            )
            for each in shown
        ]
        if rest := found[_SHOWN:]:
            size = sum(each.bytes for each in rest) / 1e6
            count = sum(each.count for each in rest)
            rows.append((f"{len(rest)} more", "", "", "", f"{count:,}", f"{size:,.2f}"))
        tables.append(Table(title, columns, rows, 4))
    return tables


def markdown_row(report: Report) -> list[str]:
    """The cells of a plan in the tables of docs/planning.md."""
    plan, accelerators = report.plan, report.plan.accelerators
    return [
        accelerators.slice.name,
        str(accelerators.chips),
        " x ".join(str(size) for size in plan.mesh.values()),
        f"{plan.batch_size:,}",
        gib(plan.memory.frozen),
        gib(plan.memory.trained + plan.memory.optimizer),
        gib(plan.memory.activations),
        f"{gib(plan.memory.peak)} of {accelerators.peaks.hbm_bytes / 2**30:.0f} GiB",
        "yes" if plan.fits else "no",
        f"{plan.dot_flops_per_chip / 1e9:,.0f}",
        seconds(plan.seconds_at_peak),
        f"{plan.bytes_sent('ici') / 1e9:,.2f}",
    ]


def seconds(value: float) -> str:
    """A time with three significant digits."""
    for unit, size in (("s", 1.0), ("ms", 1e-3)):
        if value >= size:
            return f"{value / size:.3g} {unit}"
    return f"{value / 1e-6:.3g} us"
