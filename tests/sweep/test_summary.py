"""The table of a sweep."""

import numpy as np
import pytest

from poly_jax.errors import UserError
from poly_jax.sweep.bar_plot import save_bar_plot
from poly_jax.sweep.cells import Cell
from poly_jax.sweep.method import Method
from poly_jax.sweep.summary import Summary

SCORES = {
    **{("A", "x", seed): score for seed, score in enumerate((50.0, 70.0, 10.0))},
    **{("A", "y", seed): score for seed, score in enumerate((0.0, 1.0, 100.0))},
    **{("B", "x", seed): score for seed, score in enumerate((60.0, 60.0, 60.0))},
}


@pytest.fixture
def summary():
    return Summary.of(("A", "B"), ("x", "y"), (0, 1, 2), SCORES)


def test_a_cell_is_the_median_over_seeds_and_the_mean_is_over_the_tasks_medians(summary):
    np.testing.assert_array_equal(summary.medians[0], [50.0, 1.0])
    assert summary.means[0] == 25.5
    assert summary.columns == ("method", "x", "y", "mean")
    assert summary.rows[0] == ["A", "50.0", "1.0", "25.5"]


def test_a_missing_result_is_shown_as_missing_and_has_no_mean(summary):
    assert summary.rows[1] == ["B", "60.0", "-", "-"]
    assert "| B | 60.0 | - | - |" in summary.markdown()
    assert r"B & 60.0 & - & - \\" in summary.latex()


def test_the_plot_is_a_png(summary, tmp_path):
    from etils import epath

    save_bar_plot(epath.Path(tmp_path) / "bars.png", summary, "accuracy")
    assert (tmp_path / "bars.png").read_bytes().startswith(b"\x89PNG")


def test_methods_are_parsed_from_the_command_line():
    assert Method.parse("runs/mhr:mhr-z") == Method("runs/mhr", "mhr-z")
    assert Method.parse("runs/mhr:mhr-z").label == "mhr mhr-z"
    assert Method.parse("best=gs://bucket/run=1:full") == Method("gs://bucket/run=1", "full", "best")
    for text in ("runs/mhr", ":mhr", "runs/mhr:", "name=:mhr"):
        with pytest.raises(UserError, match="is not RUN:VARIANT"):
            Method.parse(text)


def test_the_seed_is_filled_into_a_tasks_name_and_left_out_of_the_table():
    cell = Cell("bench_{seed}_a", 42)
    assert cell.seqio_task == "bench_42_a"
    assert Cell("task_seed{seed}", 1).seqio_task == "task_seed1"
    assert Cell("task_{seed}", 1).column == "task"
