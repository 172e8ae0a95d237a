"""Sweeps of short runs."""

import pytest


@pytest.fixture(scope="module", autouse=True)
def _quick_compilation(quick_compilation):
    """These programs take longer to compile than to run."""
