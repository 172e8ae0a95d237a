"""Fixtures of the whole test suite."""

import contextlib
import os
import pathlib
from collections.abc import Iterator

import pytest

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


@pytest.fixture(scope="session")
def shared_data() -> pathlib.Path:
    """The folder of real data beside the checkout; tests that need it skip where it is absent."""
    root = pathlib.Path(__file__).resolve().parents[1]
    folder = pathlib.Path(os.environ.get("POLY_JAX_TEST_DATA", root.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no real data at {folder}; set POLY_JAX_TEST_DATA to its folder")
    return folder


@pytest.fixture(scope="session", autouse=True)
def _compilation_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Programs that several tests compile are compiled once."""
    import jax

    jax.config.update("jax_compilation_cache_dir", str(tmp_path_factory.mktemp("compiled")))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.3)


@pytest.fixture
def own_folder(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The test works in an empty folder, and no gin configuration is left after it."""
    import gin

    monkeypatch.chdir(tmp_path)
    yield
    gin.clear_config()


@contextlib.contextmanager
def _few_optimizations() -> Iterator[None]:
    import jax

    before = jax.config.read("jax_disable_most_optimizations")
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", before)


@pytest.fixture(scope="module")
def quick_compilation() -> Iterator[None]:
    """For programs that take longer to compile than to run."""
    with _few_optimizations():
        yield


@pytest.fixture(scope="session")
def short_runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Folders of two runs of the embedded benchmark, as short as can be: skills are shared, or private."""
    import gin

    from poly_jax.configuration import Configuration
    from poly_jax.training.train import train

    small = ("Adapters.sites = ('.*/attention/query', '.*/mlp/wo')", "train.steps = 2", "Data.batch_size = 8")
    root = tmp_path_factory.mktemp("short_runs")
    with _few_optimizations():
        for name in ("mhr", "private"):
            Configuration((f"recipes/skillbench/{name}.gin",), small).load()
            train(str(root / name))
    gin.clear_config()
    return {name: str(root / name) for name in ("mhr", "private")}
