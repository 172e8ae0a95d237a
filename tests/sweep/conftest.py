"""Sweeps of short runs, which leave no configuration behind."""

import gin
import pytest


@pytest.fixture(scope="module", autouse=True)
def _quick_compilation(quick_compilation):
    """These programs take longer to compile than to run."""


@pytest.fixture(autouse=True)
def _own_configuration():
    yield
    gin.clear_config()
