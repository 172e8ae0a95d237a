"""A sample of the fault matrix with real processes; `POLY_JAX_FAULTS=whole` runs all of it."""

import os

import pytest
from cases import CASES, Case, Place

_WHOLE = os.environ.get("POLY_JAX_FAULTS") == "whole"


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return Place(tmp_path_factory.mktemp("faults"))


@pytest.mark.slow
@pytest.mark.parametrize("case", [case for case in CASES if case.sample or _WHOLE], ids=str)
def test_the_promise_holds(case: Case, place: Place):
    case.check(place)
