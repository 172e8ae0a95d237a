"""A sample of the fault matrix with real processes; `POLY_JAX_FAULTS=whole` runs all of it."""

import os
import pathlib
import re

import pytest
from cases import CASES, Case, Place

PAGE = pathlib.Path(__file__).resolve().parents[2] / "docs" / "reliability.md"
_WHOLE = os.environ.get("POLY_JAX_FAULTS") == "whole"


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return Place(tmp_path_factory.mktemp("faults"))


@pytest.mark.slow
@pytest.mark.parametrize("case", [case for case in CASES if case.sample or _WHOLE], ids=str)
def test_the_promise_holds(case: Case, place: Place):
    case.check(place)


def test_the_matrix_has_the_rows_of_the_page():
    """A row that is lost from the code would otherwise stay a promise."""
    rows = re.findall(r"^\| (.+?) \| (.+?) \| (.+?) \| (.+?) \| [\d,]+ \|$", PAGE.read_text(), re.MULTILINE)
    told = [tuple(field.replace("`", "") for field in row) for row in rows]
    assert sorted(told) == sorted((case.fault, case.program, case.phase, case.promise) for case in CASES)
