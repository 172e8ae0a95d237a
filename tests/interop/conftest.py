"""PEFT's fixture as a run."""

import json
import pathlib

import numpy as np
import pytest

# Names of the tasks 0 to 4 of PEFT's fixture, deliberately not in alphabetical order.
POLY_TASKS = ["echo", "delta", "alpha", "charlie", "bravo"]


@pytest.fixture(scope="session")
def poly_fixture(shared_data) -> pathlib.Path:
    """PEFT's Poly with 4 skills, 4 splits and rank 4, its base model, and PEFT's outputs for them."""
    return shared_data / "peft" / "poly_k4_s4_r4"


@pytest.fixture(scope="session")
def poly_run(poly_fixture, tmp_path_factory) -> pathlib.Path:
    """The fixture imported as a run, with names for its tasks."""
    from poly_jax import cli

    root = tmp_path_factory.mktemp("poly")
    (root / "names.json").write_text(json.dumps(POLY_TASKS))
    arguments = [f"--from={poly_fixture / 'adapter'}", f"--backbone={poly_fixture / 'base'}"]
    arguments += [f"--output={root / 'run'}", f"--tasks={root / 'names.json'}"]
    assert cli.main(["import", *arguments]) == 0
    return root / "run"


@pytest.fixture(scope="session")
def poly_task_ids(poly_fixture) -> np.ndarray:
    """The fixture's task ids translated to the run's task table, which sorts the names."""
    by_number = np.argsort(np.argsort(POLY_TASKS))
    return by_number[np.load(poly_fixture / "fixture.npz")["task_ids"]].astype(np.int32)
