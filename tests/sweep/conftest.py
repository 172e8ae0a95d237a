"""Two runs of the embedded benchmark, as short as can be: with shared skills, and with private adapters."""

import gin
import jax
import pytest

from poly_jax.configuration import Configuration


@pytest.fixture(scope="session", autouse=True)
def _quick_compilation():
    """These programs take longer to compile than to run."""
    before = jax.config.read("jax_disable_most_optimizations")
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", before)


@pytest.fixture(autouse=True)
def _own_configuration():
    yield
    gin.clear_config()


SMALL = ("Adapters.sites = ('.*/attention/query', '.*/mlp/wo')", "train.steps = 2", "Data.batch_size = 8")


@pytest.fixture(scope="session")
def runs(tmp_path_factory):
    """Their folders, by recipe."""
    from poly_jax.training.train import train

    root = tmp_path_factory.mktemp("runs")
    for name in ("mhr", "private"):
        Configuration((f"recipes/skillbench/{name}.gin",), SMALL).load()
        train(str(root / name))
    return {name: str(root / name) for name in ("mhr", "private")}
