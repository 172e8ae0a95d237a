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
    assert suggestion(run, planned, planned.memory.frozen) is None


def test_a_suggested_layout_is_applied_to_the_run(run):
    layout = Layout(fsdp=4, model=2, remat="full", microbatches=2)
    applied = layout.applied(run)
    assert Layout.of(applied) == layout
    assert applied.experiment.data == run.experiment.data


def test_the_batch_is_divisible_by_the_suggested_microbatches(run, planned):
    found = suggestion(run, planned, int(0.6 * planned.memory.peak), batch_size=6)
    assert found is None or 6 % found.layout.microbatches == 0
