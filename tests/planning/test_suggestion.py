"""Suggested layouts of a tiny run, with made-up limits of memory."""

import dataclasses

import pytest

from poly_jax.planning.abstract_run import table_of
from poly_jax.planning.suggestion import Layout, suggest


def suggestion(run, planned, available, batch_size=8):
    data = dataclasses.replace(run.data, batch_size=batch_size)
    changed = dataclasses.replace(run, experiment=dataclasses.replace(run.experiment, data=data))
    return suggest(changed, table_of(5), dataclasses.replace(planned, available=available), 0.4)


def test_what_has_room_is_left_as_it_is(run, planned):
    found = suggestion(run, planned, 2 * planned.memory.peak)
    assert found.layout == Layout(1, 1, "none", 1) == Layout.of(run)
    assert found.bytes_per_chip == pytest.approx(planned.memory.peak, rel=0.01)


def test_what_is_a_little_too_large_keeps_less(run, planned):
    found = suggestion(run, planned, int(0.95 * planned.memory.peak))
    assert found.layout != Layout.of(run)
    assert found.bytes_per_chip < 0.9 * planned.memory.peak


def test_nothing_is_suggested_where_the_state_alone_is_too_large(run, planned):
    # As whole numbers of 8 bits the frozen weights take a quarter, and the trained ones as much as before.
    assert suggestion(run, planned, planned.memory.frozen // 4) is None


def test_kernels_become_int8_where_no_layout_of_floats_fits(run, planned):
    roomy = suggestion(run, planned, planned.memory.peak)
    assert roomy.layout.quantization == "none"
    assert "quantization" not in roomy.layout.bindings
    # float32 kernels are most of this model, and int8 ones take a quarter of their bytes.
    limits = range(planned.memory.peak, planned.memory.frozen // 4, -2048)
    found = [suggestion(run, planned, limit) for limit in limits]
    kinds = [each and each.layout.quantization for each in found]
    assert kinds == sorted(kinds, key=["none", "int8", None].index)
    assert "int8" in kinds
    best = found[kinds.index("int8")]
    assert best.layout.bindings.endswith("--gin.T5Config.quantization=\"'int8'\"")
    assert best.layout.applied(run).experiment.model.quantization == "int8"
    assert Layout.of(best.layout.applied(run)) == best.layout


def test_integers_are_not_suggested_to_a_run_that_trains_all(run, planned):
    trains_all = dataclasses.replace(run, trainable="all")
    for limit in range(planned.memory.peak, planned.memory.frozen // 4, -8192):
        found = suggestion(trains_all, planned, limit)
        assert found is None or found.layout.quantization == "none"


def test_a_suggested_layout_is_applied_to_the_run(run):
    layout = Layout(fsdp=4, model=2, remat="full", microbatches=2, quantization="int8")
    applied = layout.applied(run)
    assert Layout.of(applied) == layout
    assert applied.experiment.data == run.experiment.data


def test_the_batch_is_divisible_by_the_suggested_microbatches(run, planned):
    found = suggestion(run, planned, int(0.6 * planned.memory.peak), batch_size=6)
    assert found is None or 6 % found.layout.microbatches == 0
