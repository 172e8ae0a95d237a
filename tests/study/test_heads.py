"""The study of heads: its cells are what they say, and its tables come from complete results."""

import dataclasses

import jax
import numpy as np
import pytest
from etils import epath

from poly_jax import configuration
from poly_jax.model.parameters import parameter_shapes
from poly_jax.model.transformer import Transformer
from poly_jax.reporting.results_file import ResultsFile
from poly_jax.study import heads, heads_summary
from poly_jax.study.heads import CELLS, LATER
from poly_jax.weights.parameter_names import is_router
from poly_jax.weights.tree import split


def test_each_cell_has_runs_and_results_of_its_own():
    assert len({cell.method.name for cell in CELLS}) == len(CELLS)
    assert len({cell.method.run_name for cell in CELLS}) == len(CELLS)
    # The later cells add adaptations to runs that the others trained.
    trained = {dataclasses.replace(cell.method, adaptations=()) for cell in CELLS}
    assert {dataclasses.replace(cell.method, adaptations=()) for cell in LATER} <= trained


@pytest.mark.parametrize("cell", CELLS, ids=lambda cell: cell.method.run_name)
def test_a_cell_counts_the_numbers_that_route_a_task(cell):
    loaded = configuration.load([cell.method.recipe], list(cell.method.bindings))
    experiment = loaded.arguments("train", output_dir="unused")["experiment"]
    adapters = dataclasses.replace(experiment.adapters, n_tasks=1)
    routers, _ = split(parameter_shapes(Transformer(experiment.model, adapters))[0], is_router)
    assert sum(leaf.size for leaf in jax.tree.leaves(routers)) == cell.n_numbers
    assert adapters.granularity == cell.granularity


@pytest.fixture
def results(tmp_path):
    """Scores of the cells with one router, in which heads add 2 points, and 60 when the row alone adapts."""
    found = ResultsFile(epath.Path(tmp_path) / "results.jsonl")
    for cell in CELLS[:3]:
        for seed in cell.seeds:
            key = {"form": "named", "method": cell.method.name, "seed": seed}
            found.add({"stage": "seen", **key}, {"seen": 99.0, "trained": 1000})
            many = cell.n_splits > 1
            for ending, score in (("", 95 + 2 * many), ("-z", 20 + 60 * many), ("-mu", 80)):
                variant = f"{cell.family}{ending}"
                value = {"heldout": float(score + seed), "rate": 0.1, "trained": 8}
                found.add({"stage": "heldout", "variant": variant, **key}, value)
    return found


def test_the_summary_compares_heads_with_one_head_seed_by_seed(results, tmp_path):
    text = heads_summary.write_summary(epath.Path(tmp_path), results, (0, 1, 2, 3, 4))
    assert text == (tmp_path / "summary.md").read_text()
    # Scores of 95 to 99: the standard error is sqrt(2.5 / 5), and t(0.975, 4) = 2.776.
    assert "| coarse, 1 head | 8 | 1,000 | 5 | 99.0 ± 0.0 | 97.0 ± 2.0 | 22.0 ± 2.0 | 82.0 ± 2.0 |" in text
    assert "| coarse, 32 heads - coarse, 1 head | 2.0 ± 0.0 | 60.0 ± 0.0 | 0.0 ± 0.0 |" in text
    assert "| coarse, 32 heads | -17.0 ± 0.0 |" in text
    assert "fine" not in text
    assert (tmp_path / "heads.png").stat().st_size > 10_000


def test_the_picture_has_a_point_for_every_cell_of_the_grid_with_results(results):
    panels = heads_summary.picture(results, (0, 1, 2, 3, 4)).axes
    assert len(panels) == 3
    (line,) = panels[0].containers
    np.testing.assert_array_equal(line.lines[0].get_xdata(), [8, 64, 256])
    np.testing.assert_array_equal(line.lines[0].get_ydata(), [97, 99, 99])


def test_results_of_all_cells_are_gathered_in_one_file(results, tmp_path):
    parts = tmp_path / "study" / "parts"
    parts.mkdir(parents=True)
    (parts / "one.jsonl").write_bytes((tmp_path / "results.jsonl").read_bytes())
    for _ in range(2):
        gathered = heads.gather(epath.Path(tmp_path / "study"))
    assert len(list(gathered.matching(stage="seen"))) == 15
    # Another machine goes on from this file.
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "results.jsonl").write_bytes((tmp_path / "study" / "results.jsonl").read_bytes())
    for _ in range(2):
        heads.scatter(epath.Path(tmp_path / "other"))
    own = ResultsFile(epath.Path(tmp_path / "other" / "parts" / "coarse-8_heads.jsonl"))
    assert len(list(own.matching())) == len(list(gathered.matching(method="coarse, 8 heads"))) == 20
    lines = (tmp_path / "study" / "results.jsonl").read_text().splitlines()
    assert len(lines) == len((tmp_path / "results.jsonl").read_text().splitlines())
