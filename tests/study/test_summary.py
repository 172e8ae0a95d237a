"""The tables over seeds: means and intervals of complete results only."""

import numpy as np
import pytest
from etils import epath

from poly_jax.reporting.results_file import ResultsFile
from poly_jax.study.arrays import exact_match
from poly_jax.study.seeds import interval, shown
from poly_jax.study.summary import summarise


@pytest.fixture
def results(tmp_path):
    results = ResultsFile(epath.Path(tmp_path) / "results.jsonl")
    for seed, (seen, heldout, zero) in enumerate([(98, 90, 1), (99, 92, 2), (100, 94, 3)]):
        key = {"form": "named", "method": "MHR", "seed": seed}
        results.add({"stage": "seen", **key}, {"seen": seen, "trained": 245760})
        trained = {"rate": 0.001, "heldout": heldout, "trained": 174336}
        results.add({"stage": "heldout", "variant": "mhr", **key}, trained)
        untrained = {"rate": 0.0, "heldout": zero, "trained": 21504}
        results.add({"stage": "heldout", "variant": "zero-shot", **key}, untrained)
    return results


def test_the_interval_of_three_values_uses_students_t():
    # For 1, 2, 3: the standard error is 1 / sqrt(3), and t(0.975, 2) = 4.302653, from a table.
    assert interval([1.0, 2.0, 3.0]) == pytest.approx((2.0, 4.302653 / 3**0.5), rel=1e-6)


def test_a_method_has_one_line_for_every_variant(results):
    lines = summarise(results, (0, 1, 2)).splitlines()
    assert "| MHR | 245,760 | 99.0 ± 2.5 | mhr | 174,336 | 0.001 | 92.0 ± 5.0 |" in lines
    assert "|  |  |  | zero-shot | 0 | - | 2.0 ± 2.5 |" in lines


def test_results_that_some_seeds_lack_are_left_out(results):
    key = {"stage": "heldout", "variant": "mhr-z", "form": "named", "method": "MHR", "seed": 0}
    results.add(key, {"rate": 0.03, "heldout": 50.0, "trained": 2304})
    assert "mhr-z" not in summarise(results, (0, 1, 2))
    assert "Poly" not in summarise(results, (0, 1, 2))


def test_the_interval_of_five_values_uses_students_t():
    # t for 4 degrees of freedom at 97.5 % is 2.776; the standard error of 1..5 is sqrt(2.5 / 5).
    mean, half = interval([1.0, 2.0, 3.0, 4.0, 5.0])
    assert mean == 3.0
    assert half == pytest.approx(2.776 * np.sqrt(0.5), rel=1e-3)


def test_exact_match_counts_rows_without_a_wrong_token():
    assert exact_match(np.array([[1, 2], [1, 3]]), np.array([[1, 2], [1, 2]])) == 50.0


def test_the_summary_reports_paired_differences(tmp_path):
    results = ResultsFile(tmp_path / "results.jsonl")
    scores = {("MHR", "mhr"): 90.0, ("Poly", "poly"): 95.0, ("shared LoRA", "shared"): 40.0}
    for (method, variant), score in scores.items():
        for seed in (0, 1):
            key = {"form": "named", "method": method, "seed": seed}
            results.once({"stage": "seen", **key}, lambda: {"seen": 99.0, "trained": 10})
            found = {"heldout": score + seed, "trained": 5, "rate": 0.001}
            results.once({"stage": "heldout", "variant": variant, **key}, lambda found=found: found)
    text = summarise(results, (0, 1))
    assert "| Poly - shared LoRA | 55.0 ± 0.0 |" in text
    assert "| MHR - Poly | -5.0 ± 0.0 |" in text


def test_a_mean_that_rounds_to_zero_has_no_sign():
    assert shown(np.array([-0.01, 0.0, -0.02])) == "0.0 ± 0.0"
