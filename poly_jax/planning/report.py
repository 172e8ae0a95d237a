"""The report of `plan`: the plan's figures, a suggestion, the largest batch, and the run's time and cost."""

import dataclasses
from typing import Any

from poly_jax.counted import counted
from poly_jax.planning.collectives import Collective
from poly_jax.planning.memory import Memory
from poly_jax.planning.plan import Plan
from poly_jax.planning.suggestion import Estimate, Layout

_HOUR = 3600


@dataclasses.dataclass(frozen=True)
class Report:
    """A plan and what follows from it.

    Attributes:
      plan: the plan.
      steps: number of steps of the run.
      share_of_peak: share of a chip's peak that matrix products are assumed to reach.
      layout: the run's own mesh, remat and microbatches.
      suggestion: the layout that is estimated to be best; None if none fits, or for other programs.
      suggested: the plan of that layout where it was compiled.
      largest_batch: the largest batch size that fits; None where it was not searched for.
    """

    plan: Plan
    steps: int
    share_of_peak: float
    layout: Layout
    suggestion: Estimate | None = None
    suggested: Plan | None = None
    largest_batch: int | None = None

    @property
    def seconds(self) -> float:
        """Seconds of a step at the assumed share of the peak."""
        return self.plan.seconds_at_peak / self.share_of_peak

    @property
    def steps_per_hour(self) -> float:
        """Number of steps in an hour."""
        return _HOUR / self.seconds

    @property
    def hours(self) -> float:
        """Hours of all steps of the run."""
        return self.steps / self.steps_per_hour

    @property
    def chip_hours(self) -> float:
        """Hours of all steps, times the number of chips."""
        return self.hours * self.plan.accelerators.chips

    @property
    def seconds_sent(self) -> dict[str, float]:
        """Least seconds of the collectives of a step by network, if every link is always busy."""
        peaks = self.plan.accelerators.peaks
        # A link's peak counts both directions. A chip sends and receives an all-reduce's array twice.
        speeds = {"ici": peaks.ici / 2, "dcn": peaks.dcn}
        return {
            network: sum(
                each.bytes * (2 if each.kind == "all-reduce" else 1)
                for each in self.plan.collectives or ()
                if each.network == network
            )
            / speed
            for network, speed in speeds.items()
        }

    def fields(self) -> dict[str, Any]:
        """The plan for other programs; docs/planning.md says what each field is."""
        plan, accelerators = self.plan, self.plan.accelerators
        sent = plan.collectives
        return {
            "topology": accelerators.slice.name,
            "chips": accelerators.chips,
            "hosts": accelerators.slice.hosts * accelerators.slices,
            "hbm_bytes": accelerators.peaks.hbm_bytes,
            "bytes_per_chip": dataclasses.asdict(plan.memory),
            "dot_flops_per_chip": plan.dot_flops_per_chip,
            "seconds_at_peak": plan.seconds_at_peak,
            "collectives": None if sent is None else [_fields_of(each) for each in sent],
            "fits": plan.fits,
            "largest_batch_per_chip": None
            if self.largest_batch is None
            else self.largest_batch / accelerators.chips,
        }

    def verdict(self) -> str:
        """Whether it fits, by how much, in a sentence."""
        memory, plan = self.plan.memory, self.plan
        if plan.fits:
            free = plan.accelerators.peaks.hbm_bytes - memory.peak
            return f"It fits: {gib(free)} of {gib(plan.accelerators.peaks.hbm_bytes)} a chip are free."
        assert plan.available is not None
        return (
            f"It does not fit: it needs {gib(memory.peak)} a chip, {gib(memory.peak - plan.available)} more"
            f" than the {gib(plan.available)} that a program may use."
        )

    def advice(self) -> list[str]:
        """The changes that are suggested, in sentences."""
        lines = []
        if self.plan.program == "train":
            lines.append(self._advice_on_layout())
        if self.largest_batch is not None:
            chips = self.plan.accelerators.chips
            lines.append(
                f"Largest batch that fits on this mesh: {counted(self.largest_batch, 'row')},"
                f" {self.largest_batch / chips:,g} a chip."
                if self.largest_batch
                else "No batch fits on this mesh."
            )
        return lines

    def _advice_on_layout(self) -> str:
        found = self.suggestion
        if found is None:
            return (
                "By estimate, no mesh, remat, number of microbatches or quantization fits: choose a larger"
                " slice, or a smaller Data.batch_size."
            )
        if found.layout == self.layout:
            return "By estimate, no other mesh, remat or number of microbatches is faster."
        size = f"{gib(found.bytes_per_chip)} a chip by estimate"
        if self.suggested is not None:
            fits = "fits" if self.suggested.fits else "does not fit"
            size = f"{gib(self.suggested.memory.peak)} a chip as compiled, which {fits}"
        return f"By estimate, this is the fastest that fits ({size}): {found.layout.bindings}"


def gib(count: float) -> str:
    """A number of bytes in GiB, or in MiB below 0.1 GiB."""
    if not count:
        return "0"
    return f"{count / 2**30:.2f} GiB" if count >= 0.1 * 2**30 else f"{count / 2**20:.1f} MiB"


def memory_rows(memory: Memory) -> list[tuple[str, ...]]:
    """The kinds of memory and their bytes as text."""
    kinds = dataclasses.asdict(memory).items()
    return [(name, "unknown" if value is None else gib(value)) for name, value in kinds]


def _fields_of(collective: Collective) -> dict[str, Any]:
    names = ("kind", "count", "bytes", "shape", "source", "network")
    return {name: getattr(collective, name) for name in names}
