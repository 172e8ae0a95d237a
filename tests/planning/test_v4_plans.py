"""Plans for v4, of whose chips libtpu describes only halves: a stand-in for the compiler refuses programs."""

import dataclasses

import jax
import pytest

from poly_jax.planning import plan as plan_module
from poly_jax.planning import texts
from poly_jax.planning.abstract_run import table_of
from poly_jax.planning.devices import Devices
from poly_jax.planning.memory import TooLarge, compile_or_measure
from poly_jax.planning.plan import Accelerators, make_plan
from poly_jax.planning.report import Report
from poly_jax.planning.suggestion import Layout

GIB = 2**30
# Half of a v4 chip's 32 GiB, less what libtpu keeps.
HALF = int(15.25 * GIB)


@pytest.fixture
def planned_with(monkeypatch, run):
    """A function that plans for a slice while the compiler refuses the first programs; it tells of what for.

    The bytes that each refused program needs are given. The next one is compiled for a CPU device.
    """

    def plan(name, *needed):
        described, refused = [], iter(needed)

        def describe(accelerators, slices=1):
            described.append(accelerators.name)
            return Devices((jax.devices()[0],))

        def compile_unless_refused(lowered):
            size = next(refused, None)
            return compile_or_measure(lowered) if size is None else TooLarge(size, HALF)

        monkeypatch.setattr(plan_module, "tpu_devices", describe)
        monkeypatch.setattr(plan_module, "compile_or_measure", compile_unless_refused)
        return make_plan(run, table_of(5), Accelerators.named(name)), described

    return plan


def reported(plan, run):
    return Report(plan, run.steps, 0.4, Layout.of(run))


def test_a_step_that_needs_more_than_half_a_v4_chip_is_compiled_for_v5p_and_the_plan_says_so(
    planned_with, run
):
    plan, described = planned_with("v4:2x2x1", 20 * GIB)
    assert described == ["v4:2x2x1", "v5p:2x2x1"]
    assert (plan.compiled_for, plan.fits) == ("v5p", True)
    (note,) = texts.notes(reported(plan, run))
    assert note == (
        "Compiled for v5p, a slice of the same shape, because libtpu describes only one of the two cores of a"
        " v4 chip, with half of its memory."
    )
    # All else is about v4: https://cloud.google.com/tpu/docs/v4 has 32 GiB and 275 TFLOP/s.
    fields = reported(plan, run).fields()
    assert (fields["topology"], fields["hbm_bytes"]) == ("v4:2x2x1", 32 * GIB)
    assert fields["seconds_at_peak"] == pytest.approx(fields["dot_flops_per_chip"] / 275e12)


def test_a_step_that_fits_into_half_a_v4_chip_is_compiled_once_and_nothing_is_said(planned_with, run):
    plan, described = planned_with("v4:2x2x1")
    assert (described, plan.compiled_for) == (["v4:2x2x1"], "v4")
    assert texts.notes(reported(plan, run)) == []


def test_a_step_that_needs_more_than_a_whole_v4_chip_does_not_fit(planned_with, run):
    plan, described = planned_with("v4:2x2x1", 40 * GIB)
    assert (described, plan.fits) == (["v4:2x2x1"], False)
    assert "needs 40.00 GiB a chip, 9.50 GiB more than the 30.50 GiB" in reported(plan, run).verdict()


def test_a_step_that_only_v5p_has_room_for_does_not_fit_on_v4(planned_with, run, monkeypatch):
    measured = plan_module.memory_of

    def large(compiled, arguments):
        return dataclasses.replace(measured(compiled, arguments), peak=31 * GIB)

    monkeypatch.setattr(plan_module, "memory_of", large)
    plan, _ = planned_with("v4:2x2x1", 30 * GIB)
    assert (plan.compiled_for, plan.fits) == ("v5p", False)
    assert "0.50 GiB more than the 30.50 GiB" in reported(plan, run).verdict()


def test_other_chips_are_not_replaced(planned_with):
    plan, described = planned_with("v5e:2x2", 20 * GIB)
    assert (described, plan.compiled_for, plan.fits) == (["v5e:2x2"], "v5e", False)
    assert plan.available == HALF
