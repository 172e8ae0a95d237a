"""Results that a rerun reuses, and the intervals made of them."""

import numpy as np
import pytest

from poly_jax.errors import UserError
from poly_jax.reporting.results_file import ResultsFile
from poly_jax.study.arrays import exact_match
from poly_jax.study.summary import interval, summarise


def test_a_result_is_computed_once_also_by_a_later_process(tmp_path):
    calls = []

    def compute():
        calls.append(1)
        return {"score": 1.5}

    path = tmp_path / "results.jsonl"
    assert ResultsFile(path).once({"a": 1, "b": "x"}, compute) == {"score": 1.5}
    assert ResultsFile(path).once({"b": "x", "a": 1}, compute) == {"score": 1.5}
    assert len(calls) == 1
    ResultsFile(path).once({"a": 2, "b": "x"}, compute)
    assert len(calls) == 2


def test_the_interval_is_students():
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


def test_half_a_line_of_a_stopped_process_is_dropped_and_the_rest_kept(tmp_path):
    path = tmp_path / "results.jsonl"
    ResultsFile(path).add({"a": 1}, {"score": 1.0})
    whole = path.read_text()
    path.write_text(whole + '{"key": {"a": 2}, "resu')
    results = ResultsFile(path)
    assert results.get({"a": 1}) == {"score": 1.0}
    assert {"a": 2} not in results
    results.add({"a": 2}, {"score": 2.0})
    assert ResultsFile(path).get({"a": 2}) == {"score": 2.0}


def test_a_file_of_something_else_is_named_with_its_line(tmp_path):
    path = tmp_path / "results.jsonl"
    path.write_text('{"key": {"a": 1}, "result": {}}\n[1, 2]\n')
    with pytest.raises(UserError, match=r"results\.jsonl, line 2, is no result"):
        ResultsFile(path)
