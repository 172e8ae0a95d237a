"""Sweeps of short runs."""

import pytest


@pytest.fixture(scope="module", autouse=True)
def _quick_compilation(quick_compilation):
    """Compile quickly, because these programs take longer to compile than to run."""
