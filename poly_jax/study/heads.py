"""The study of heads (docs/heads.md): where routers sit, how many heads they have, and what is adapted."""

import dataclasses
import os
from collections.abc import Sequence

from etils import epath

from poly_jax.reporting.output_folder import RESULTS, check_output_folder
from poly_jax.reporting.results_file import ResultsFile, read_results
from poly_jax.study.bindings import check_bindings
from poly_jax.study.labels import labelled
from poly_jax.study.methods import RECIPES, Adaptation, MultitaskMethod, adaptation
from poly_jax.study.processes import single_threaded

PUBLISHED_SEEDS = (0, 1, 2, 3, 4)
GRID_SEEDS = (0, 1, 2)
ROUTERS = {"coarse": 1, "stack": 2, "layer": 10, "fine": 36}
"""Number of routers in the model of the embedded benchmark, by granularity."""


@dataclasses.dataclass(frozen=True)
class Cell:
    """A cell of the study.

    Attributes:
      method: way to train and adapt it.
      granularity: places of the routers.
      n_splits: number of heads of a router.
      n_skills: number of skills.
      factor: difference from the cells of the grid; empty for a cell of the grid.
      seeds: its seeds.
    """

    method: MultitaskMethod
    granularity: str
    n_splits: int
    n_skills: int
    factor: str
    seeds: tuple[int, ...]

    def seeds_among(self, seeds: Sequence[int]) -> list[int]:
        """The cell's own seeds among the given ones."""
        return [seed for seed in self.seeds if seed in seeds]

    @property
    def n_numbers(self) -> int:
        """The number of routing numbers of a task."""
        return ROUTERS[self.granularity] * self.n_splits * self.n_skills

    @property
    def family(self) -> str:
        """The name of its variants: mhr with several heads, and else poly."""
        return "poly" if self.n_splits == 1 else "mhr"


def _cell(
    granularity: str,
    n_splits: int,
    seeds: tuple[int, ...] = GRID_SEEDS,
    *,
    n_skills: int = 8,
    factor: str = "",
    bindings: tuple[str, ...] = (),
    more: tuple[Adaptation, ...] = (),
    sampling: bool = True,
) -> Cell:
    family = "poly" if n_splits == 1 else "mhr"
    name = f"{granularity}, {n_splits} head{'s' if n_splits > 1 else ''}" + (f", {factor}" if factor else "")
    adaptations = [adaptation(f"{family}{ending}") for ending in ("", "-z", "-mu")]
    if not sampling:
        # A variant that averages the skills has no router to sample from.
        full, row, average = adaptations
        adaptations = [*(dataclasses.replace(each, sampling=False) for each in (full, row)), average]
    method = MultitaskMethod(
        name,
        f"{RECIPES}/{family}.gin",
        (*adaptations, *more),
        bindings=(
            f"Adapters.granularity = '{granularity}'",
            f"Adapters.n_splits = {n_splits}",
            f"Adapters.n_skills = {n_skills}",
            *bindings,
        ),
        # The lowest rate of the embedded benchmark, 3e-3, does far worse with one router.
        rates=(1e-2, 3e-2),
    )
    return Cell(method, granularity, n_splits, n_skills, factor, seeds)


def _with_examples(granularity: str, n_splits: int) -> Cell:
    """The cell of the grid, which also adapts to 4 and to 64 examples, at the rates for 16."""
    family = "poly" if n_splits == 1 else "mhr"
    more = tuple(
        Adaptation(f"{name}, {count} examples", name, n_examples=count, tuned_as=name)
        for count in (4, 64)
        for name in (family, f"{family}-z")
    )
    return _cell(granularity, n_splits, more=more)


# Why many heads at every site do worse than one when the row alone is trained: noise in adapting, or too few
# steps.
_DIAGNOSES = (
    Adaptation("mhr-z, no noise", "mhr-z", sampling=False, tuned_as="mhr-z"),
    Adaptation("mhr-z, 800 steps", "mhr-z", steps=800, tuned_as="mhr-z"),
    Adaptation("mhr-z, no noise, 800 steps", "mhr-z", steps=800, sampling=False, tuned_as="mhr-z"),
)

CELLS: tuple[Cell, ...] = (
    *(_cell("coarse", n_splits, PUBLISHED_SEEDS) for n_splits in (1, 8, 32)),
    _cell("coarse", 1, n_skills=64, factor="64 skills"),
    _cell("fine", 8, more=_DIAGNOSES),
    _cell("fine", 1),
    *(_cell("stack", n_splits) for n_splits in (1, 8, 32)),
    *(_cell("layer", n_splits) for n_splits in (1, 8, 32)),
    *(_cell("coarse", n_splits, n_skills=3, factor="3 skills") for n_splits in (1, 8)),
    *(
        _cell(
            "coarse",
            n_splits,
            factor="no noise",
            bindings=("LearnedRouter.sampling = False",),
            sampling=False,
        )
        for n_splits in (1, 8)
    ),
    _cell("coarse", 8, factor="A scaled per head", bindings=("LoRA.init = 'kaiming'",)),
    _cell("coarse", 4),
)
"""The cells in the order in which they are computed: those that the conclusions need most come first."""

LATER: tuple[Cell, ...] = tuple(_with_examples("coarse", n_splits) for n_splits in (1, 8, 32))
"""Cells that need the runs of the cells before them."""


def reproduce_heads(
    output_dir: str, seeds: Sequence[int] = PUBLISHED_SEEDS, bindings: Sequence[str] = ()
) -> None:
    """Compute all cells of the study, two at a time, and write the tables and the picture.

    Args:
      output_dir: folder of the runs, `results.jsonl`, `summary.md` and `heads.png`. A rerun computes only
        what is missing.
      seeds: seeds to compute, of those that each cell has.
      bindings: gin bindings on top of the recipes.

    Raises:
      UserError: the folder holds a training run, or the files of another program; or no method reads a
        binding.
    """
    # The summary draws a figure, which the processes below do not need.
    from poly_jax.study.heads_summary import write_summary

    check_bindings([cell.method for cell in (*CELLS, *LATER)], bindings)
    check_output_folder(output_dir, "reproduce")
    folder = epath.Path(output_dir)
    scatter(folder)
    for cells in (CELLS, LATER):
        jobs = [(cell, output_dir, tuple(seeds), tuple(bindings)) for cell in cells]
        with single_threaded(len(os.sched_getaffinity(0)), jobs_each=1) as processes:
            list(processes.map(_compute, jobs))
    print(write_summary(folder, gather(folder), seeds))
    print(f"outputs: {folder} (summary.md, heads.png, results.jsonl, and a run per cell and seed)")


def scatter(folder: epath.Path) -> None:
    """Give each cell's own file the results that the study's file has, such as those of another machine."""
    (folder / "parts").mkdir(parents=True, exist_ok=True)
    results = ResultsFile(folder / RESULTS)
    for cell in CELLS:
        part = _part(folder, cell)
        for key, result in results.matching(method=cell.method.name):
            if key not in part:
                part.add(key, result)


def _part(folder: epath.Path, cell: Cell) -> ResultsFile:
    """A cell's own file of results, because two processes would damage a file that they share."""
    return ResultsFile(folder / "parts" / f"{cell.method.run_name}.jsonl")


def gather(folder: epath.Path) -> ResultsFile:
    """Put the results of all cells into the study's one file of results."""
    results = ResultsFile(folder / RESULTS)
    for part in sorted((folder / "parts").glob("*.jsonl")):
        for key, result in read_results(part):
            if key not in results:
                results.add(key, result)
    return results


def _compute(job: tuple[Cell, str, tuple[int, ...], tuple[str, ...]]) -> None:
    from poly_jax.study.comparison import Comparison, keep_compiled

    cell, output_dir, seeds, bindings = job
    folder = epath.Path(output_dir)
    keep_compiled(folder)
    with labelled(cell.method.name):
        comparison = Comparison(folder, _part(folder, cell), bindings)
        for seed in cell.seeds_among(seeds):
            comparison.run(cell.method, "named", seed)
