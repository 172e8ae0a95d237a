"""Jobs that the tests of launching share. The folder is on the module path, for the modules beside them."""

import pathlib
import sys
from collections.abc import Callable

import pytest

from poly_jax.launch.job import Job
from poly_jax.launch.slices import parse_slice

sys.path.insert(0, str(pathlib.Path(__file__).parent))


@pytest.fixture
def make_job() -> Callable[..., Job]:
    """A function that returns a job that trains on a slice, with any field replaced."""

    def made(slice_: str = "v5e:4x4", **fields) -> Job:
        given = {
            "name": "mhr",
            "command": ("train", "--gin_file=my.gin", "--gin.T5Config.dtype='bfloat16'"),
            "slice": parse_slice(slice_),
            "image": "us-docker.pkg.dev/acme/images/poly-jax:1",
            "bucket": "gs://acme/runs",
            "project": "acme",
            "location": "us-west4-a",
        }
        return Job(**{**given, **fields})

    return made
