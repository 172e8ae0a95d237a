"""`poly-jax demo` with only a few steps."""

import dataclasses
import json

import pytest

from poly_jax.study import demonstration


@pytest.mark.slow
def test_the_demonstration_writes_a_table_results_figures_and_runs(tmp_path, monkeypatch, capsys, one_layer):
    short = tuple(
        dataclasses.replace(
            compared,
            adaptations=tuple(dataclasses.replace(each, steps=2) for each in compared.adaptations),
        )
        for compared in demonstration.COMPARED
    )
    monkeypatch.setattr(demonstration, "COMPARED", short)
    monkeypatch.setenv("NPROC", "1")
    # Few sites and layers, because compiling takes most of the time.
    sites = "Adapters.sites = ('.*/attention/query', '.*/mlp/wo')"
    demonstration.demo(str(tmp_path), bindings=("train.steps = 2", sites, *one_layer))
    results = json.loads((tmp_path / "results.json").read_text())
    assert [r["variant"] for r in results] == ["mhr", "mhr-z", "poly", "poly-z", "shared"]
    # Rank 4 x (input + output width), for a query of the encoder and the last map of each MLP; times eight
    # skills. One router has 8 logits for a task and head.
    per_task = {r["variant"]: r["trained_per_task"] for r in results}
    one = 4 * (128 + 192 + 192)
    assert per_task["shared"] == one
    assert per_task["mhr-z"] == 32 * 8
    assert per_task["mhr"] == 8 * one + 32 * 8
    assert per_task["poly-z"] == 8
    assert per_task["poly"] == 8 * one + 8
    assert all(len(r["heldout"]) == 8 for r in results)
    assert "| MHR, 32 heads |" in (tmp_path / "table.md").read_text()
    for name in ("router_mhr.png", "router_poly.png"):
        assert (tmp_path / name).stat().st_size > 10_000
    for run in ("mhr", "poly", "shared"):
        assert (tmp_path / run / "config.gin").exists()
    assert capsys.readouterr().out.strip().splitlines()[-1].startswith(f"outputs: {tmp_path}")
